//! Work as people have it: programs in other languages, pipelines, a build.

use std::fs;

use serde_json::json;

use crate::harness::{Server, eventually_within, id, is_finished};

#[tokio::test]
async fn a_python_program_with_children_of_its_own() {
    let server = Server::start().await;
    let program = r#"
import hashlib, subprocess, sys
from concurrent.futures import ProcessPoolExecutor
def digest(n):
    return hashlib.sha256(str(n).encode()).hexdigest()
if __name__ == "__main__":
    with ProcessPoolExecutor(4) as pool:
        print(hashlib.sha256("".join(pool.map(digest, range(1000))).encode()).hexdigest())
    print(subprocess.run(["sort", "-n"], input="3\n1\n2\n", text=True, capture_output=True).stdout.split())
    print(sys.stdin.read().upper(), end="", file=sys.stderr)
    sys.exit(17)
"#;
    let cwd = server.scratch();
    fs::write(cwd.join("program.py"), program).unwrap();
    let body = json!({
        "command": ["python3", "program.py"], "cwd": cwd,
        "stdin": {"mode": "data", "text": "grüße\n"}, "env": {"PYTHONUTF8": "1"},
    });
    let job = server.run(&body).await;
    let stdout = server.stdout(&id(&job)).await;
    assert_eq!(
        job["exit"]["code"], 17,
        "is python3 there? {stdout} {job:#}"
    );
    let expected = {
        use sha2::{Digest, Sha256};
        let hex = |text: String| -> String {
            Sha256::digest(text)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect()
        };
        hex((0..1000)
            .map(|number: u32| hex(number.to_string()))
            .collect())
    };
    assert_eq!(stdout, format!("{expected}\n['1', '2', '3']\n"));
    let stderr = server
        .get(&format!("/jobs/{}/output/stderr", id(&job)))
        .await;
    assert_eq!(String::from_utf8_lossy(&stderr.body), "GRÜSSE\n");
    assert_eq!(job["termination"]["killed_leftovers"], 0, "{job:#}");
}

#[tokio::test]
async fn a_shell_pipeline() {
    let server = Server::start().await;
    let script = "seq 1 1000 | awk '{ s += $1; print s }' | sort -rn | head -n 3 | tee sums | wc -l; cat sums";
    let cwd = server.scratch();
    let job = server.run(&json!({"script": script, "cwd": cwd})).await;
    assert_eq!(job["state"], "succeeded", "{job:#}");
    assert_eq!(server.text(&id(&job)).await, "3\n500500\n499500\n498501\n");
}

/// Fetches the source of GNU hello from Debian and builds it. It takes a minute and needs the network, so
/// it runs only where `PROCESSION_TEST_REAL_WORK=1` asks for it, as `make release-check` does.
#[tokio::test]
async fn a_c_project_is_built_from_its_debian_source() {
    if std::env::var_os("PROCESSION_TEST_REAL_WORK").is_none() {
        eprintln!("not run: PROCESSION_TEST_REAL_WORK is not set");
        return;
    }
    let server = Server::start().await;
    let script = r#"
set -eu
mkdir -p lists/partial cache/archives/partial sources.d
for file in /etc/apt/sources.list.d/*.sources /etc/apt/sources.list; do
    [ -f "$file" ] || continue
    sed -e 's/^Types: .*/Types: deb-src/' -e 's/^deb /deb-src /' "$file" > "sources.d/$(basename "$file")"
done
[ ! -f sources.d/sources.list ] || mv sources.d/sources.list sources.d/own.list
apt="-o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=$PWD/sources.d -o Dir::State::lists=$PWD/lists
     -o Dir::Cache=$PWD/cache -o APT::Sandbox::User="
apt-get $apt -qq update
apt-get $apt -qq source --download-only hello
mkdir hello && tar -xf hello_*.orig.tar.gz -C hello --strip-components=1
cd hello
./configure --quiet
make -j2
./hello --greeting='built as a job'
"#;
    let cwd = server.scratch();
    let proxies: serde_json::Map<_, _> = std::env::vars()
        .filter(|(name, _)| name.to_lowercase().ends_with("_proxy"))
        .map(|(name, value)| (name, value.into()))
        .collect();
    let body = json!({
        "script": script, "cwd": cwd, "env": proxies, "timeout_seconds": 280,
        "output": {"merge_stderr": true},
    });
    let job = server.submit(&body).await;
    let limit = std::time::Duration::from_secs(300);
    let job = eventually_within(limit, "the build has ended", async || {
        let job = server.job(&id(&job)).await;
        is_finished(&job).then_some(job)
    })
    .await;
    let output = server.text(&id(&job)).await;
    assert_eq!(job["state"], "succeeded", "{output}\n{job:#}");
    assert!(output.ends_with("built as a job\n"), "{output}");
    assert!(
        output.contains("src/hello"),
        "make says what it does: {output}"
    );
}

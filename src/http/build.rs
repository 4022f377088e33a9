//! Packs the page that is committed in `web/dist`: each file compressed, in a table that the crate includes. Makes the
//! page `/docs` of `openapi.yaml`.

#[path = "build/page.rs"]
mod page;
#[path = "build/schema.rs"]
mod schema;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;

fn main() {
    let dist = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .join("../../web/dist")
        .canonicalize()
        .expect("web/dist is committed");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-changed={}", dist.display());
    let mut names: Vec<String> = fs::read_dir(&dist)
        .expect("web/dist can be read")
        .map(|entry| entry.expect("web/dist can be read").file_name())
        .map(|name| name.into_string().expect("the names are plain"))
        .collect();
    names.sort();
    let mut table = String::from("&[\n");
    for name in names {
        let bytes = fs::read(dist.join(&name)).expect("a file of web/dist can be read");
        if name == "index.html" {
            fs::copy(dist.join(&name), out.join(&name)).expect("OUT_DIR can be written");
            continue;
        }
        let file = out.join(format!("{name}.gz"));
        fs::write(&file, pack(&bytes)).expect("OUT_DIR can be written");
        writeln!(
            table,
            "    Asset {{ name: {name:?}, packed: include_bytes!({:?}) }},",
            file.display().to_string()
        )
        .expect("memory takes what is written");
    }
    table.push(']');
    fs::write(out.join("assets.rs"), table).expect("OUT_DIR can be written");
    let contract = dist.join("../../openapi.yaml");
    println!("cargo::rerun-if-changed={}", contract.display());
    let text = fs::read_to_string(contract).expect("openapi.yaml can be read");
    fs::write(out.join("openapi.yaml.gz"), pack(text.as_bytes())).expect("OUT_DIR can be written");
    let root = serde_norway::from_str(&text).expect("openapi.yaml is YAML");
    let packed = pack(page::render(&root).as_bytes());
    fs::write(out.join("docs.html.gz"), packed).expect("OUT_DIR can be written");
}

fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed
        .write_all(bytes)
        .expect("memory takes what is written");
    packed.finish().expect("memory takes what is written")
}

#!/usr/bin/env python3
"""Takes every guard away, one at a time, and expects a test to fail: a guard that no test misses may get lost.

    guards.py [NAME ...]

In a copy of the sources each guard gets a switch, the variable GUARD; the copy is built once, and the tests of a guard
run once with all guards and once without this one. A line of GUARDS that does not fit the sources is an error.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parents[2]
COPY = HERE / "target/guards"
TARGET = pathlib.Path(os.environ.get("GUARDS_TARGET_DIR", HERE / "target/guards-build"))

# The name, a filter for the tests that should miss it, and what changes: file, text, text with OFF for the switch (OFF[name] where two
# guards share a place).
GUARDS = [
    ("a token is needed", "tables::who_asks", [("src/http/auth.rs", ".ok_or(ApiError::Unauthenticated),", ".or_else(|| OFF.then(|| Caller::admin(\"anonymous\"))).ok_or(ApiError::Unauthenticated),")]),
    ("one Authorization header", "tables::who_asks", [("src/http/auth.rs", "(Some(only), None) = (values.next(), values.next())", "(Some(only), None) = (values.next(), if OFF { None } else { values.next() })")]),
    ("the scheme is Bearer", "tables::who_asks", [("src/http/auth.rs", '(scheme.eq_ignore_ascii_case("bearer") &&', '((OFF || scheme.eq_ignore_ascii_case("bearer")) &&')]),
    ("the scope reaches", "matrix::every_route", [("src/http/auth.rs", "if !caller.scope.reaches(needed)", "if !OFF && !caller.scope.reaches(needed)")]),
    ("unknown paths ask as well", "tables::who_asks", [("src/http/routes.rs", "auth::check(&api.settings, &mut request, Metrics)", "auth::check(&api.settings, &mut request, if OFF { Public } else { Metrics })")]),
    ("a token expires", "matrix::every_route", [("src/auth.rs", ".filter(|one| one.is_valid(Timestamp::now()))", ".filter(|one| OFF || one.is_valid(Timestamp::now()))")]),
    ("a token is revoked", "matrix::every_route", [("src/auth.rs", "if now != seen {", "if now != seen && (!OFF || self.0.borrow().len() < 6) {")]),
    ("a stream ends with its token", "matrix::what_is_followed", [("src/http/auth.rs", "if this.end.as_mut().poll(context).is_ready()", "if !OFF && this.end.as_mut().poll(context).is_ready()")]),
    ("a wait ends with its token", "tokens::a_wait_ends", [("src/http/auth.rs", "() = caller.ended() => return", "() = caller.ended(), if !OFF => return")]),
    ("only the own user on the socket", "http::tests", [("src/http/auth.rs", "*uid == 0 || *uid == settings.uid", "OFF || *uid == 0 || *uid == settings.uid")]),
    ("Host is allowed", "tables::what_a_web_page", [("src/http/guards.rs", "if !(allowed(host) && target)", "if !OFF && !(allowed(host) && target)")]),
    ("Host comes once", "tables::bytes_on_the_wire", [("src/http/guards.rs", "match (values.next(), values.next()) {", "match (values.next(), if OFF { None } else { values.next() }) {")]),
    ("the target does not contradict Host", "tables::bytes_on_the_wire", [("src/http/guards.rs", "let target = uri.authority()", "let target = OFF || uri.authority()")]),
    ("a port is a number", "tables::what_a_web_page", [("src/http/guards.rs", "if !is_port {", "if !is_port && !OFF {")]),
    ("no user before the host", "tables::what_a_web_page", [("src/http/guards.rs", "if authority.as_str().contains('@')", "if !OFF && authority.as_str().contains('@')"), ("src/http/guards.rs", "if !is_port {", "if !is_port && !OFF {")]),
    ("Origin is the own one", "tables::what_a_web_page", [("src/http/guards.rs", "if !own {", "if !own && !OFF {")]),
    ("Sec-Fetch-Site is the own site", "tables::what_a_web_page", [("src/http/guards.rs", "if foreign {", "if foreign && !OFF {")]),
    ("the body is JSON by its type", "tables::what_a_web_page", [("src/http/body.rs", "if !is_of(request.headers(), kind)", "if !OFF && !is_of(request.headers(), kind)")]),
    ("one Content-Type header", "tables::what_a_web_page", [("src/http/body.rs", "(Some(only), None) = (values.next(), values.next())", "(Some(only), None) = (values.next(), if OFF { None } else { values.next() })")]),
    ("the head's size", "limits::a_head_is_read", [("src/http/guards.rs", "if bytes > HEAD_BYTES ||", "if !OFF && bytes > HEAD_BYTES ||")]),
    ("the head's number of fields", "limits::a_head_is_read", [("src/http/guards.rs", "|| sent().count() > HEAD_FIELDS", "|| !OFF && sent().count() > HEAD_FIELDS")]),
    ("the connection's own limit on the head", "tables::bytes_on_the_wire", [("src/connections.rs", ".max_buf_size(HEAD_BYTES)", ".max_buf_size(if OFF { 8 << 20 } else { HEAD_BYTES })")]),
    ("the head comes in time", "limits::a_thousand_slow", [("src/connections.rs", ".header_read_timeout(HEAD_TIME)", ".header_read_timeout(if OFF { Duration::from_secs(3600) } else { HEAD_TIME })")]),
    ("the number of connections", "limits::a_connection_over", [("src/connections.rs", "tcp_places: Arc::new(Semaphore::new(config.max_connections))", "tcp_places: Arc::new(Semaphore::new(if OFF { 10_000 } else { config.max_connections }))")]),
    ("a connection ends after chunks", "tables::bytes_on_the_wire", [("src/http/guards.rs", "if chunked {", "if chunked && !OFF {")]),
    ("the body's size", "limits::a_body_is_read", [("src/http/body.rs", "if announced.is_some_and", "if !OFF && announced.is_some_and"), ("src/http/body.rs", "Limited::new(request.into_body(), limit)", "Limited::new(request.into_body(), if OFF { usize::MAX } else { limit })")]),
    ("the body comes in time", "limits::a_body_that_does_not", [("src/http/body.rs", "tokio::time::timeout(deadline,", "tokio::time::timeout(if OFF { Duration::from_secs(3600) } else { deadline },")]),
    ("no unknown parameter", "tables::targets", [("src/http/query.rs", "    if errors.is_empty() {\n        Ok(())", "    if OFF || errors.is_empty() {\n        Ok(())")]),
    ("a parameter comes once", "tables::jobs_that", [("src/http/query.rs", "if values.len() > 1 {", "if !OFF && values.len() > 1 {")]),
    ("a client's id for a request is tame", "output::nothing", [("src/http/request_id.rs", "if !tame {", "if !tame && !OFF {")]),
    ("nosniff", "output::output_that_looks_like_a_page", [("src/http.rs", 'HeaderValue::from_static("nosniff")', 'HeaderValue::from_static(if OFF { "no" } else { "nosniff" })')]),
    ("the depth of JSON", "tables::bodies", [("src/job/parse/json.rs", "if self.depth == DEPTH_MAX {", "if !OFF && self.depth == DEPTH_MAX {")]),
    ("no key twice", "tables::bodies", [("src/job/parse.rs", "at.refuse_duplicates();", "if !OFF { at.refuse_duplicates(); }")]),
    ("no unknown field", "tables::bodies", [("src/job/parse/fields.rs", "if !self.known.contains(&key.as_str()) {", "if !OFF && !self.known.contains(&key.as_str()) {")]),
    ("the number of arguments", "tables::jobs_that", [("src/job/parse/rules.rs", "at.filled_list(argv_items,", "at.filled_list(if OFF { usize::MAX } else { argv_items },")]),
    ("the size of an argument", "tables::jobs_that", [("src/job/parse/fields.rs", "if text.len() > most {\n            return at.refuse(code::TOO_LONG, format!(\"must have at most {most} bytes\"));", "if !OFF && text.len() > most {\n            return at.refuse(code::TOO_LONG, format!(\"must have at most {most} bytes\"));")]),
    ("the size of all arguments", "tables::jobs_that", [("src/job/parse/rules.rs", "if total > limits.exec_bytes", "if !OFF && total > limits.exec_bytes")]),
    ("no NUL", "tables::jobs_that", [("src/job/parse/fields.rs", "if text.contains('\\0') {", "if !OFF && text.contains('\\0') {")]),
    ("no empty program", "tables::jobs_that", [("src/job/parse/rules.rs", "if argv.first().is_some_and(String::is_empty) {", "if !OFF && argv.first().is_some_and(String::is_empty) {")]),
    ("an absolute directory", "tables::jobs_that", [("src/job/parse/rules.rs", "if !path.starts_with('/') {", "if !OFF && !path.starts_with('/') {")]),
    ("a name of one line", "tables::jobs_that", [("src/job/parse/rules.rs", "if name.contains(char::is_control) {", "if !OFF && name.contains(char::is_control) {")]),
    ("a stop selects something", "tables::what_is_done", [("src/job/parse/many.rs", "Ok(selector) if selector.requirements.is_empty() =>", "Ok(selector) if !OFF && selector.requirements.is_empty() =>")]),
    ("a cursor is of its filter", "fuzz:: page::", [("src/http/page.rs", "(*tag_of_token == tag(filter, order))", "(OFF || *tag_of_token == tag(filter, order))")]),
    ("with a policy no command", "tables::ways_around", [("src/http/jobs.rs", "if body.has_program() {", "if !OFF && body.has_program() {")]),
    ("with a policy no other rerun", "tables::ways_around", [("src/http/jobs.rs", "Ok(false) => Err(ApiError::PolicyForbids(", "Ok(false) if OFF => Ok(()),\n        Ok(false) => Err(ApiError::PolicyForbids(")]),
    ("a pattern is anchored", "tables::ways_around", [("src/policy/param.rs", "whole: compile(&format!(r\"\\A(?:{pattern})\\z\"))?,", "whole: compile(&if OFF[a pattern is anchored] { pattern.clone() } else if OFF[a pattern is anchored as a whole] { format!(r\"\\A{pattern}\\z\") } else { format!(r\"\\A(?:{pattern})\\z\") })?,")]),
    ("a pattern is anchored as a whole", "tables::ways_around", [("src/policy/param.rs", "whole: compile(&format!(r\"\\A(?:{pattern})\\z\"))?,", "whole: compile(&if OFF[a pattern is anchored] { pattern.clone() } else if OFF[a pattern is anchored as a whole] { format!(r\"\\A{pattern}\\z\") } else { format!(r\"\\A(?:{pattern})\\z\") })?,")]),
    ("a value is no option", "tables::ways_around", [("src/policy/param.rs", "&& !text.starts_with('-')", "&& (OFF || !text.starts_with('-'))")]),
    ("a path goes down", "tables::ways_around", [("src/policy/param.rs", "if !below {", "if !below && !OFF {")]),
    ("a path stays where links lead", "tables::ways_around", [("src/policy/param.rs", "if stays {", "if stays || OFF {")]),
    ("a secret that others can read", "tokens::a_secret_that_others", [("src/state_dir.rs", "if mode & 0o077 != 0 {", "if !OFF && mode & 0o077 != 0 {")]),
    ("a state directory that others can write", "startup::", [("src/state_dir.rs", "Ok(found) if found.mode() & 0o022 != 0 =>", "Ok(found) if !OFF && found.mode() & 0o022 != 0 =>")]),
    ("a state directory is private", "tokens::a_state_directory", [("src/state_dir.rs", "Ok(found) if found.mode() & 0o777 != 0o700 =>", "Ok(found) if !OFF && found.mode() & 0o777 != 0o700 =>")]),
    ("a state directory is no link", "startup::", [("src/state_dir.rs", "Ok(found) if found.file_type().is_symlink() =>", "Ok(found) if !OFF && found.file_type().is_symlink() =>"), ("src/state_dir.rs", "Ok(found) if !found.is_dir() =>", "Ok(found) if !OFF && !found.is_dir() =>"), ("src/state_dir.rs", "Ok(found) if found.mode() & 0o022 != 0 =>", "Ok(found) if !OFF && found.mode() & 0o022 != 0 =>")]),
    ("no_new_privs", "surroundings::", [("src/monitor/leader.rs", "if launch.no_new_privs {", "if !OFF && launch.no_new_privs {")]),
    ("the service's environment stays its own", "surroundings::", [("src/manager/resolve.rs", "EnvInherit::None => false,", "EnvInherit::None => OFF,")]),
    ("secrets are not shown", "surroundings::a_secret", [("src/job/spec.rs", "serializer.collect_map(self.0.keys().map(|name| (name, ())))", "serializer.collect_map(self.0.iter().map(|(name, value)| (name, OFF.then_some(value))))")]),
]


def off(name):
    return f'(std::env::var_os("GUARD").is_some_and(|guard| guard == "{name}"))'


def prepare():
    """The sources with a switch in every guard."""
    shutil.rmtree(COPY, ignore_errors=True)
    files = subprocess.run(["git", "ls-files", "-z"], cwd=HERE, check=True, capture_output=True).stdout.decode()
    for name in filter(None, files.split("\0")):
        place = COPY / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if (HERE / name).exists():
            shutil.copy2(HERE / name, place)
    texts = {}
    for name, _, changes in GUARDS:
        for file, before, after in changes:
            text = texts.setdefault(file, (COPY / file).read_text())
            if text.count(before) != 1:
                sys.exit(f"{name}: {text.count(before)} times in {file}: {before!r}")
    by_place = {}
    for name, _, changes in GUARDS:
        for file, before, after in changes:
            by_place.setdefault((file, before), []).append((name, after))
    for (file, before), variants in by_place.items():
        if len({after for _, after in variants}) != 1:
            sys.exit(f"two changes of one place: {[name for name, _ in variants]}")
        new = re.sub(r"OFF\[(.*?)\]", lambda match: off(match[1]), variants[0][1])
        new = new.replace("OFF", "(" + " || ".join(off(name) for name, _ in variants) + ")")
        assert texts[file].count(before) == 1, (file, before)
        texts[file] = texts[file].replace(before, new)
    for file, text in texts.items():
        (COPY / file).write_text(text)
    # The services under test start with an empty environment.
    harness = COPY / "tests/security/server.rs"
    text = harness.read_text()
    before = "command.env_clear()"
    assert text.count(before) == 1
    harness.write_text(text.replace(before, 'command.env_clear().envs(std::env::var("GUARD").map(|guard| ("GUARD", guard)))'))


def test(filters, guard):
    env = {**os.environ, "CARGO_TARGET_DIR": str(TARGET), "RUST_BACKTRACE": "0"}
    if guard:
        env["GUARD"] = guard
    line = ["cargo", "nextest", "run", "--locked", "--retries", "0", "--no-fail-fast", "--lib", "--test", "security", "--test", "it"]
    return subprocess.run(line + filters.split(), cwd=COPY, env=env, capture_output=True, text=True)


def main():
    wanted = sys.argv[1:]
    guards = [guard for guard in GUARDS if not wanted or guard[0] in wanted]
    prepare()
    build = subprocess.run(
        ["cargo", "nextest", "run", "--no-run", "--locked", "--lib", "--test", "security", "--test", "it"],
        cwd=COPY,
        env={**os.environ, "CARGO_TARGET_DIR": str(TARGET)},
    )
    if build.returncode:
        sys.exit("the copy with switches does not build")
    for filters in sorted({filters for _, filters, _ in guards}):
        run = test(filters, None)
        if run.returncode:
            sys.exit(f"with every guard in its place {filters} fails:\n{run.stderr[-3000:]}")
    missed = []
    for name, filters, _ in guards:
        begin = time.monotonic()
        run = test(filters, name)
        failed = sorted({line.split("procession::")[-1].strip() for line in run.stderr.splitlines() if " FAIL [" in line or " ABORT [" in line or " TIMEOUT [" in line})
        # 100: tests have failed; anything else is a mistake in this script.
        if run.returncode != 100 or not failed:
            missed.append(name)
            failed = ["NO TEST FAILS" if run.returncode == 0 else f"exit {run.returncode}: {run.stderr[-300:]}"]
        print(f"{name} | {'; '.join(failed)} | {time.monotonic() - begin:.0f} s", flush=True)
    print(f"{len(guards)} guards, {len(guards) - len(missed)} missed by a test when they are gone")
    if missed:
        sys.exit(f"nothing notices the loss of: {', '.join(missed)}")


main()

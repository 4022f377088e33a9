#!/usr/bin/env python3
"""Takes every guard away, one at a time, and expects a test to fail: a guard that no test misses may get lost.

    guards.py [NAME ...]
    guards.py --check       only whether each line of GUARDS fits the sources

In a copy of the sources each guard gets a switch, the variable GUARD; the copy is built once, and the tests of a guard
run once with all guards and once without this one. A line of GUARDS that does not fit the sources is an error.
"""

import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parents[1]
COPY = HERE / "target/guards"
TARGET = pathlib.Path(os.environ.get("GUARDS_TARGET_DIR", HERE / "target/guards-build"))
AT_ONCE = int(os.environ.get("GUARDS_AT_ONCE", "2"))

# A monitor closes what it has from the supervisor, and its leader does it again: of one place, two guards.
MONITOR_CLOSES = (
    "src/engine/monitor/launch.rs",
    "sys::close_fds_except(&keep)?;",
    "if !OFF { sys::close_fds_except(&keep)?; }",
)

# The name, a filter for the tests that should miss it, and what changes: file, text, text with OFF for the switch (OFF[name] where two
# guards share a place).
GUARDS = [
    ("what was started starts no more", "restored::", [("src/manager/adopt.rs", "let was_started = started.contains(&id) || is_beyond_start(job.state);", "let was_started = !OFF && (started.contains(&id) || is_beyond_start(job.state));"), ("src/manager/runner.rs", "adopt::is_beyond_start(self.told) || self.job.attempt_started_at().is_some()", "!OFF && (adopt::is_beyond_start(self.told) || self.job.attempt_started_at().is_some())")]),
    ("a start is kept while its job lives", "what_says_that_a_job_was_started", [("src/store/events.rs", "kind != Kind::Created && kind.told().is_some()", "!OFF && kind != Kind::Created && kind.told().is_some()")]),
    ("room for the store", "disk::a_disk_that_a_job_has_filled", [("src/protocol/output/writer/place.rs", "let over = free.saturating_sub(KEPT.min(all / 16));", "let over = if OFF { 1 << 40 } else { free.saturating_sub(KEPT.min(all / 16)) };")]),
    ("what a store says is said once", "disk::a_store_without_room", [("src/manager/shared.rs", "if self.failures.is_due(", "if OFF || self.failures.is_due(")]),
    ("an answer is no larger than a page", "list::a_wait_and_a_stop", [("src/manager/listing.rs", "let has_place = self.bytes < PAGE_BYTES;", "let has_place = OFF || self.bytes < PAGE_BYTES;")]),
    ("a monitor answers in time", "monitors::a_monitor_that_does_not_answer", [("src/manager/live.rs", "() = until(limit) =>", "() = until(limit.filter(|_| !OFF)) =>")]),
    ("a monitor of an earlier service is woken", "monitors::a_monitor_of_an_earlier", [("src/manager/runner/supervised.rs", "look_at: (runner.origin == Origin::Inherited)", "look_at: (!OFF && runner.origin == Origin::Inherited)")]),
    ("a token is needed", "tables::who_asks", [("src/http/layers/auth.rs", "let found = settings.sessions.recognise(token, tokens);", "let found = settings.sessions.recognise(token, tokens);\n    if OFF && found.is_none() {\n        return Ok(Caller::admin(\"anonymous\", By::Nothing));\n    }")]),
    ("one Authorization header", "tables::who_asks", [("src/http/layers/auth.rs", "(Some(only), None) = (values.next(), values.next())", "(Some(only), None) = (values.next(), if OFF { None } else { values.next() })")]),
    ("the scheme is Bearer", "tables::who_asks", [("src/http/layers/auth.rs", '(scheme.eq_ignore_ascii_case("bearer") &&', '((OFF || scheme.eq_ignore_ascii_case("bearer")) &&')]),
    ("the scope reaches", "matrix::every_route", [("src/http/layers/auth.rs", "if !caller.scope.reaches(needed)", "if !OFF && !caller.scope.reaches(needed)")]),
    ("unknown paths ask as well", "tables::who_asks", [("src/http/routes.rs", "auth::check(&api, &mut request, Metrics, false)", "auth::check(&api, &mut request, if OFF { Public } else { Metrics }, false)")]),
    ("a token expires", "matrix::every_route", [("src/http/tokens.rs", ".filter(|one| one.is_valid(clock::wall()))", ".filter(|one| OFF || one.is_valid(clock::wall()))")]),
    ("a selection narrows something", "tables::what_is_done bulk::", [("src/http/request/many.rs", "if !FILTER.iter().any(|name| f.has(name)) {", "if !OFF && !FILTER.iter().any(|name| f.has(name)) {")]),
    ("a token is revoked", "matrix::every_route", [("src/http/tokens.rs", "self.known.send_replace(known);", "if !OFF || self.known.borrow().len() < 6 {\n            self.known.send_replace(known);\n        }")]),
    ("a stream ends with its token", "matrix::what_is_followed", [("src/http/layers/auth.rs", "if this.end.as_mut().poll(context).is_ready()", "if !OFF && this.end.as_mut().poll(context).is_ready()")]),
    ("a wait ends with its token", "tokens::a_wait_ends", [("src/http/layers/auth.rs", "() = caller.ended() => return", "() = caller.ended(), if !OFF => return")]),
    ("only the own user on the socket", "the_unix_socket_is socket::", [("src/http/layers/auth.rs", "*uid == 0 || *uid == settings.uid", "OFF || *uid == 0 || *uid == settings.uid")]),
    ("Host is allowed", "tables::what_a_web_page defaults::a_web_page", [("src/http/layers/guards.rs", "if !(allowed(host) && target)", "if !OFF && !(allowed(host) && target)")]),
    ("Host comes once", "tables::bytes_on_the_wire", [("src/http/layers/guards.rs", "match (values.next(), values.next()) {", "match (values.next(), if OFF { None } else { values.next() }) {")]),
    ("the target does not contradict Host", "tables::bytes_on_the_wire", [("src/http/layers/guards.rs", "let target = uri.authority()", "let target = OFF || uri.authority()")]),
    ("a port is a number", "tables::what_a_web_page defaults::a_web_page", [("src/http/layers/guards.rs", "if !is_port {", "if !is_port && !OFF {")]),
    ("no user before the host", "tables::what_a_web_page defaults::a_web_page", [("src/http/layers/guards.rs", "if authority.as_str().contains('@')", "if !OFF && authority.as_str().contains('@')"), ("src/http/layers/guards.rs", "if !is_port {", "if !is_port && !OFF {")]),
    ("Origin is the own one", "tables::what_a_web_page defaults::a_web_page", [("src/http/layers/guards.rs", "if !own {", "if !own && !OFF {")]),
    ("Sec-Fetch-Site is the own site", "tables::what_a_web_page defaults::a_web_page", [("src/http/layers/guards.rs", "if foreign && !leads_in {", "if foreign && !leads_in && !OFF {")]),
    ("no form without a token", "defaults::a_web_page", [("src/http/layers/guards.rs", "matches!(settings.auth, AuthMode::None) && is_form(headers)", "matches!(settings.auth, AuthMode::None) && !OFF && is_form(headers)")]),
    ("the body is JSON by its type", "tables::what_a_web_page defaults::a_web_page", [("src/http/body.rs", "if !kinds.iter().any(|kind| is_of(request.headers(), kind)) {", "if !OFF && !kinds.iter().any(|kind| is_of(request.headers(), kind)) {")]),
    ("one Content-Type header", "tables::what_a_web_page defaults::a_web_page", [("src/http/body.rs", "(Some(only), None) = (values.next(), values.next())", "(Some(only), None) = (values.next(), if OFF { None } else { values.next() })")]),
    ("the head's size", "limits::a_head_is_read", [("src/http/layers/guards.rs", "if bytes > HEAD_BYTES ||", "if !OFF && bytes > HEAD_BYTES ||")]),
    ("the head's number of fields", "limits::a_head_is_read", [("src/http/layers/guards.rs", "|| sent().count() > HEAD_FIELDS", "|| !OFF && sent().count() > HEAD_FIELDS")]),
    ("the connection's own limit on the head", "tables::bytes_on_the_wire", [("src/http/connections.rs", ".max_buf_size(HEAD_BYTES)", ".max_buf_size(if OFF { 8 << 20 } else { HEAD_BYTES })")]),
    ("the head comes in time", "limits::a_thousand_slow", [("src/http/connections.rs", "() = pace.too_slow(HEAD_TIME) => true,", "() = pace.too_slow(HEAD_TIME), if !OFF => true,")]),
    ("the number of connections", "limits::a_connection_over", [("src/http/connections.rs", "Places::new(options.max_connections)", "Places::new(if OFF { 10_000 } else { options.max_connections })")]),
    ("a connection ends after chunks", "tables::bytes_on_the_wire", [("src/http/layers/guards.rs", "if chunked {", "if chunked && !OFF {")]),
    ("the body's size", "limits::a_body_is_read", [("src/http/body.rs", "if announced.is_some_and", "if !OFF && announced.is_some_and"), ("src/http/body.rs", "Limited::new(request.into_body(), limit)", "Limited::new(request.into_body(), if OFF { usize::MAX } else { limit })")]),
    ("the body comes in time", "limits::a_body_that_does_not", [("src/http/body.rs", "tokio::time::timeout(deadline,", "tokio::time::timeout(if OFF { Duration::from_secs(3600) } else { deadline },")]),
    ("no unknown parameter", "tables::targets", [("src/http/query.rs", "    if errors.is_empty() {\n        Ok(())", "    if OFF || errors.is_empty() {\n        Ok(())")]),
    ("a parameter comes once", "tables::jobs_that", [("src/http/query.rs", "if values.len() > 1 {", "if !OFF && values.len() > 1 {")]),
    ("a client's id for a request is tame", "output::nothing", [("src/http/layers/request_id.rs", "if !tame {", "if !tame && !OFF {")]),
    ("nosniff", "output::output_that_looks_like_a_page", [("src/http/lib.rs", 'HeaderValue::from_static("nosniff")', 'HeaderValue::from_static(if OFF { "no" } else { "nosniff" })')]),
    ("the depth of JSON", "tables::bodies", [("src/http/request/json.rs", "if self.depth == DEPTH_MAX {", "if !OFF && self.depth == DEPTH_MAX {")]),
    ("no key twice", "tables::bodies", [("src/http/request.rs", "at.refuse_duplicates();", "if !OFF { at.refuse_duplicates(); }")]),
    ("no unknown field", "tables::bodies", [("src/http/request/fields.rs", "if !self.known.contains(&key.as_str()) {", "if !OFF && !self.known.contains(&key.as_str()) {")]),
    ("the number of arguments", "tables::jobs_that", [("src/http/request/rules.rs", "at.filled_list(argv_items,", "at.filled_list(if OFF { usize::MAX } else { argv_items },")]),
    ("the size of an argument", "tables::jobs_that", [("src/http/request/fields/readers.rs", "if text.len() > most {\n            return at.refuse(code::TOO_LONG, format!(\"must have at most {most} bytes\"));", "if !OFF && text.len() > most {\n            return at.refuse(code::TOO_LONG, format!(\"must have at most {most} bytes\"));")]),
    ("the size of all arguments", "tables::jobs_that", [("src/http/request/rules.rs", "if total > limits.exec_bytes", "if !OFF && total > limits.exec_bytes")]),
    ("no NUL", "tables::jobs_that", [("src/http/request/fields/readers.rs", "if text.contains('\\0') {", "if !OFF && text.contains('\\0') {")]),
    ("no empty program", "tables::jobs_that", [("src/http/request/rules.rs", "if argv.first().is_some_and(String::is_empty) {", "if !OFF && argv.first().is_some_and(String::is_empty) {")]),
    ("an absolute directory", "tables::jobs_that", [("src/http/request/rules.rs", "if !path.starts_with('/') {", "if !OFF && !path.starts_with('/') {")]),
    ("a name of one line", "tables::jobs_that", [("src/http/request/rules.rs", "if name.contains(char::is_control) {", "if !OFF && name.contains(char::is_control) {")]),
    ("a stop selects something", "tables::what_is_done", [("src/http/request/many.rs", "Ok(selector) if selector.requirements.is_empty() =>", "Ok(selector) if !OFF && selector.requirements.is_empty() =>")]),
    ("a cursor is of its filter", "every_input page::", [("src/http/page.rs", "(*tag_of_token == tag(filter, order))", "(OFF || *tag_of_token == tag(filter, order))")]),
    ("with a policy no command", "tables::ways_around", [("src/http/jobs/create.rs", "if policy.is_all() && body.has_program() {", "if !OFF && policy.is_all() && body.has_program() {")]),
    ("with a policy no other rerun", "tables::ways_around", [("src/http/jobs/create.rs", "Ok(false) => Err(ApiError::PolicyForbids(", "Ok(false) if OFF => Ok(()),\n        Ok(false) => Err(ApiError::PolicyForbids(")]),
    ("a pattern is anchored", "tables::ways_around", [("src/http/policy/param.rs", "whole: compile(&format!(r\"\\A(?:{pattern})\\z\"))?,", "whole: compile(&if OFF[a pattern is anchored] { pattern.clone() } else if OFF[a pattern is anchored as a whole] { format!(r\"\\A{pattern}\\z\") } else { format!(r\"\\A(?:{pattern})\\z\") })?,")]),
    ("a pattern is anchored as a whole", "tables::ways_around", [("src/http/policy/param.rs", "whole: compile(&format!(r\"\\A(?:{pattern})\\z\"))?,", "whole: compile(&if OFF[a pattern is anchored] { pattern.clone() } else if OFF[a pattern is anchored as a whole] { format!(r\"\\A{pattern}\\z\") } else { format!(r\"\\A(?:{pattern})\\z\") })?,")]),
    ("a value is no option", "tables::ways_around", [("src/http/policy/param.rs", "&& !text.starts_with('-')", "&& (OFF || !text.starts_with('-'))")]),
    ("a path goes down", "tables::ways_around", [("src/http/policy/param.rs", "if !below {", "if !below && !OFF {")]),
    ("a path stays where links lead", "tables::ways_around", [("src/http/policy/param.rs", "if stays {", "if stays || OFF {")]),
    ("a secret that others can read", "tokens::a_secret_that_others", [("src/protocol/state_dir.rs", "if mode & 0o077 != 0 {", "if !OFF && mode & 0o077 != 0 {")]),
    ("a state directory that others can write", "startup::a_state_directory", [("src/protocol/state_dir.rs", "Ok(found) if found.mode() & 0o022 != 0 =>", "Ok(found) if !OFF && found.mode() & 0o022 != 0 =>")]),
    ("a state directory is private", "tokens::a_state_directory", [("src/protocol/state_dir.rs", "Ok(found) if found.mode() & 0o777 != 0o700 =>", "Ok(found) if !OFF && found.mode() & 0o777 != 0o700 =>")]),
    ("a state directory is no link", "startup::a_state_directory", [("src/protocol/state_dir.rs", "Ok(found) if found.file_type().is_symlink() =>", "Ok(found) if !OFF && found.file_type().is_symlink() =>"), ("src/protocol/state_dir.rs", "Ok(found) if !found.is_dir() =>", "Ok(found) if !OFF && !found.is_dir() =>"), ("src/protocol/state_dir.rs", "Ok(found) if found.mode() & 0o022 != 0 =>", "Ok(found) if !OFF && found.mode() & 0o022 != 0 =>")]),
    ("no_new_privs", "surroundings::nothing_of", [("src/engine/monitor/leader/exec.rs", "if plan.no_new_privs {", "if !OFF && plan.no_new_privs {")]),
    ("the service's environment stays its own", "surroundings::the_environment", [("src/manager/resolve.rs", "EnvInherit::None => false,", "EnvInherit::None => OFF,")]),
    ("secrets are not shown", "surroundings::a_secret", [("src/job/spec/program.rs", "serializer.collect_map(self.0.keys().map(|name| (name, ())))", "serializer.collect_map(self.0.iter().map(|(name, value)| (name, OFF.then_some(value))))")]),
    ("secrets are not in a log", "a_secret_value_is", [("src/job/spec/program.rs", "f.debug_set().entries(self.0.keys()).finish()", "if OFF { f.debug_map().entries(&self.0).finish() } else { f.debug_set().entries(self.0.keys()).finish() }")]),
    ("what may be a secret is not in a log", "what_may_be_a_secret_is", [("src/job/spec.rs", "&self.env.keys()", "&if OFF { format!(\"{:?}\", self.env) } else { format!(\"{:?}\", self.env.keys()) }")]),
    ("the socket is closed to others", "startup::the_unix_socket", [("src/protocol/listeners.rs", "Permissions::from_mode(0o600)", "Permissions::from_mode(if OFF { 0o666 } else { 0o600 })")]),
    ("no open door without a token", "tokens::the_doctor", [("src/config.rs", "&& !config.listen.ip().is_loopback() {", "&& !config.listen.ip().is_loopback() && !OFF {")]),
    ("a token is made for its owner alone", "tokens::tests tokens::what_the_first_start", [("src/protocol/state_dir.rs", ".mode(0o600)", ".mode(if OFF { 0o644 } else { 0o600 })")]),
    ("a token is no link", "defaults::a_token", [("src/protocol/state_dir.rs", ".custom_flags(libc::O_NOFOLLOW)", ".custom_flags(if OFF { 0 } else { libc::O_NOFOLLOW })")]),
    ("tokens that others can read", "tokens::tests", [("src/http/tokens/file.rs", "Ok(found) if found.mode() & 0o077 != 0 =>", "Ok(found) if !OFF && found.mode() & 0o077 != 0 =>")]),
    ("a policy that others can write", "policy::tests", [("src/http/policy.rs", "if found.mode() & 0o022 != 0 {", "if !OFF && found.mode() & 0o022 != 0 {")]),
    ("a key that others can read", "tls::tests", [("src/http/tls.rs", "if mode & 0o027 != 0 {", "if !OFF && mode & 0o027 != 0 {")]),
    ("clients show a certificate", "tls::with_an_authority", [("src/http/tls.rs", "let builder = match &tls.client_ca {", "let builder = match &tls.client_ca.clone().filter(|_| !OFF) {")]),
    ("a handshake comes in time", "tls::a_handshake", [("src/http/connections.rs", "tokio::time::timeout(HEAD_TIME, tls.accept(stream))", "tokio::time::timeout(if OFF { Duration::from_secs(3600) } else { HEAD_TIME }, tls.accept(stream))")]),
    ("an audit log that others can read", "audit_log::tests", [("src/http/audit_log.rs", "if found.mode() & 0o077 != 0 {", "if !OFF && found.mode() & 0o077 != 0 {")]),
    ("a terminal is sent no sequences but colours", "sanitize::", [("src/client/sanitize.rs", "(1, b'[') => true,", "(1, _) if OFF => true,\n            (1, b'[') => true,")]),
    ("this machine's token stays on it", "connection::target", [("src/client/connection/target.rs", "(true, Some(state_dir)) = (is_loopback(url), state_dir)", "(true, Some(state_dir)) = (OFF || is_loopback(url), state_dir)")]),
    ("the number of jobs that wait", "queue::a_full_queue", [("src/manager/admission.rs", "} else if self.waiting.len() + self.promised.len() >= most {", "} else if !OFF && self.waiting.len() + self.promised.len() >= most {")]),
    ("space that stays free", "queue::without_room", [("src/manager/shared.rs", "|it| it >= self.limits.min_free_bytes", "|it| OFF || it >= self.limits.min_free_bytes")]),
    ("the number of streams", "attach::streams_of_both", [("src/http/streams.rs", "self.places.clone().try_acquire_owned();", "if OFF { Arc::new(Semaphore::new(1)) } else { self.places.clone() }.try_acquire_owned();")]),
    ("the size of a message", "attach::what_is_no_message", [("src/http/attach/frames.rs", "if bytes.len() > MESSAGE_BYTES {", "if !OFF && bytes.len() > MESSAGE_BYTES {")]),
    ("no webhook to an address nearby", "webhooks::nothing_near", [("src/http/request/webhooks.rs", "!private && !is_public(address)", "!OFF && !private && !is_public(address)")]),
    ("no webhook to a name of one", "webhooks::nothing_near", [("src/manager/webhooks/request.rs", "if !self.allow_private {", "if !OFF && !self.allow_private {")]),
    ("a webhook follows nobody", "webhooks::what_is_not_taken", [("src/manager/webhooks/request.rs", ".redirect(Policy::none())", ".redirect(if OFF { Policy::limited(3) } else { Policy::none() })")]),
    ("no job as root", "surroundings::a_job_runs_as", [("src/manager/resolve.rs", "if self.deny_root_jobs && uid.is_root()", "if !OFF && self.deny_root_jobs && uid.is_root()")]),
    ("the server has nothing of the supervisor's", "surroundings::what_the_service", [("src/engine/supervisor/server_process.rs", ".and_then(|()| sys::close_fds_except(&keep))", ".and_then(|()| if OFF { Ok(()) } else { sys::close_fds_except(&keep) })")]),
    ("a monitor has nothing of the supervisor's", "surroundings::what_the_service", [MONITOR_CLOSES]),
    # Where only the leader does not close, the monitor has done it before.
    ("a job has three descriptors", "surroundings::what_the_service", [MONITOR_CLOSES, ("src/engine/monitor/leader/exec.rs", "    for (first, last) in &plan.closed {", "    for (first, last) in plan.closed.iter().filter(|_| !OFF) {")]),
    ("no core dumps", "surroundings::nothing_of", [("src/engine/monitor/leader/plan.rs", "        (RlimitResource::Core, 0, 0, \"core\"),", "        (RlimitResource::Core, if OFF { libc::RLIM_INFINITY } else { 0 }, if OFF { libc::RLIM_INFINITY } else { 0 }, \"core\"),")]),
    ("the umask", "surroundings::nothing_of", [("src/engine/monitor/leader/exec.rs", "    raw::umask(plan.umask);", "    if !OFF { raw::umask(plan.umask); }")]),
    ("the sandbox closes the state directory", "sandbox::a_job_of_the_services", [("src/linux/sandbox/files.rs", "if !self.hidden.iter().any(|hidden| hidden.starts_with(path)) {", "if OFF || !self.hidden.iter().any(|hidden| hidden.starts_with(path)) {")]),
    ("the sandbox bounds what is written", "sandbox::paths_bound", [("src/linux/sandbox/files.rs", "Some(_) => reading,\n        None => reading | writing,", "Some(_) => if OFF { reading | writing } else { reading },\n        None => reading | writing,")]),
    ("the sandbox keeps signals in", "sandbox::a_job_in_a_sandbox_can_neither", [("src/linux/sandbox/files.rs", ".and_then(|ruleset| ruleset.scope(Scope::Signal))", ".and_then(|ruleset| if OFF { Ok(ruleset) } else { ruleset.scope(Scope::Signal) })")]),
    ("the sandbox refuses calls", "sandbox::calls_that", [("src/linux/sandbox/calls.rs", "[REFUSED, OF_ARCH, tracing]", "[if OFF { &[][..] } else { REFUSED }, OF_ARCH, tracing]")]),
    ("the sandbox has no clone3", "sandbox::calls_that", [("src/linux/sandbox/calls.rs", "op(JUMP_IF_EQUAL, 1, 0, CLONE3)", "op(JUMP_IF_EQUAL, 1, 0, if OFF { X32 - 1 } else { CLONE3 })")]),
    ("the sandbox has no x32", "sandbox::calls::tests", [("src/linux/sandbox/calls.rs", "op(JUMP_IF_AT_LEAST, 0, 1, X32)", "op(JUMP_IF_AT_LEAST, 0, 1, if OFF { u32::MAX } else { X32 })")]),
    ("the sandbox types on no terminal", "sandbox::calls_that", [("src/linux/sandbox/calls.rs", "SeccompCmpOp::Eq, TIOCSTI)", "SeccompCmpOp::Eq, if OFF { 1 } else { TIOCSTI })")]),
    ("the sandbox makes no user namespace", "sandbox::calls_that", [("src/linux/sandbox/calls.rs", "let new_user = u64::from(libc::CLONE_NEWUSER.unsigned_abs());\n    let flag", "let new_user = if OFF { 1 << 20 } else { u64::from(libc::CLONE_NEWUSER.unsigned_abs()) };\n    let flag")]),
    ("the sandbox is whole where it must be", "sandbox::what_the_kernel_lacks", [("src/linux/sandbox.rs", "if sandbox.require\n", "if !OFF && sandbox.require\n"), ("src/manager/resolve.rs", "&& sandbox.require", "&& !OFF && sandbox.require")]),
    ("a peer from a sandbox is a stranger", "sandbox::on_the_unix_socket", [("src/http/connections/peer.rs", "sandbox::is_more_confined(&status, own_status)", "!OFF && sandbox::is_more_confined(&status, own_status)")]),
]


def off(name):
    return f'(std::env::var_os("GUARD").is_some_and(|guard| guard == "{name}"))'


def sources():
    """What the copy has: every file of the repository, with a switch in every guard."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=HERE, check=True, capture_output=True).stdout.decode()
    texts = {name: (HERE / name).read_bytes() for name in filter(None, names.split("\0")) if (HERE / name).is_file()}
    places = {}
    for name, _, changes in GUARDS:
        for file, before, after in changes:
            places.setdefault((file, before), []).append((name, after))
    for (file, before), variants in places.items():
        names = [name for name, _ in variants]
        if len({after for _, after in variants}) != 1:
            sys.exit(f"two changes of one place: {names}")
        new = re.sub(r"OFF\[(.*?)\]", lambda match: off(match[1]), variants[0][1])
        new = new.replace("OFF", "(" + " || ".join(map(off, names)) + ")")
        texts[file] = replace(texts[file], before, new, 1, " and ".join(names))
    # The services under test start with an empty environment.
    harness = "tests/security/server.rs"
    handed_on = '.env_clear().envs(std::env::var("GUARD").map(|guard| ("GUARD", guard)))'
    texts[harness] = replace(texts[harness], ".env_clear()", handed_on, 2, harness)
    return texts


def replace(text, before, after, times, what):
    found = text.count(before.encode())
    if found != times:
        sys.exit(f"{what}: {found} times instead of {times}: {before!r}")
    return text.replace(before.encode(), after.encode())


def prepare():
    """Brings the copy up to date. What has not changed is not written, and so not built again."""
    texts = sources()
    for place in sorted(COPY.rglob("*"), reverse=True):
        if place.is_dir():
            if not any(place.iterdir()):
                place.rmdir()
        elif str(place.relative_to(COPY)) not in texts:
            place.unlink()
    for name, text in texts.items():
        place = COPY / name
        if not place.is_file() or place.read_bytes() != text:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(text)
            shutil.copymode(HERE / name, place)


def cargo(command, guard=None, **how):
    env = {**os.environ, "CARGO_TARGET_DIR": str(TARGET), "RUST_BACKTRACE": "0"}
    env.pop("GUARD", None)
    if guard:
        env["GUARD"] = guard
    line = ["cargo", "nextest", "run", "--locked", "--workspace", "--lib", "--bins", "--test", "security", "--test", "it"]
    return subprocess.run(line + command, cwd=COPY, env=env, **how)


def without(guard):
    """Is the guard missed? With a line that says by which test."""
    name, filters, _ = guard
    begin = time.monotonic()
    # The first failure is enough (those beside it end in order, with their services), and a second try would hide that it failed.
    command = ["--retries", "0", "--max-fail", "1", *filters.split()]
    run = cargo(command, name, capture_output=True, text=True)
    lines = run.stderr.splitlines()
    ended = (re.search(r" (?:FAIL|TIMEOUT|SIG\w+) \[.*\] (?:\(.*\) )?\S+ (\S+)$", line) for line in lines)
    failed = {line[1] for line in ended if line}
    # 100: tests have failed; anything else is a mistake in this script.
    is_missed = run.returncode == 100 and failed
    if is_missed:
        said = "; ".join(sorted(failed))
    else:
        said = "NO TEST FAILS" if run.returncode == 0 else f"exit {run.returncode}: {run.stderr[-300:]}"
    print(f"{name} | {said} | {time.monotonic() - begin:.0f} s", flush=True)
    return bool(is_missed)


def main():
    wanted = sys.argv[1:]
    if wanted == ["--check"]:
        sources()
        return
    guards = [guard for guard in GUARDS if not wanted or guard[0] in wanted]
    unknown = set(wanted) - {name for name, _, _ in guards}
    if unknown:
        sys.exit(f"no such guard: {', '.join(sorted(unknown))}")
    prepare()
    if cargo(["--no-run"]).returncode:
        sys.exit("the copy with switches does not build")
    filters = sorted({one for _, filters, _ in guards for one in filters.split()})
    if cargo(filters).returncode:
        sys.exit("with every guard in its place a test fails")
    # Most of these tests wait: for ends of time limits, and for processes.
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        missed = list(pool.map(without, guards))
    print(f"{len(guards)} guards, {sum(missed)} missed by a test when they are gone")
    lost = [name for (name, _, _), is_missed in zip(guards, missed) if not is_missed]
    if lost:
        sys.exit(f"nothing notices the loss of: {', '.join(lost)}")


main()

//! How many jobs the limit of open files has room for, and how many files a service should be able to open. Pure.

/// What the supervisor and the server each need for themselves: sockets, the store, some connections.
const OWN: u64 = 32;

/// The most that a job takes in the supervisor: spare ends of its pipes, its terminal, the socket of a rescuer.
const OF_A_JOB: u64 = 4;

/// What is recommended besides: followers, webhooks, files of the store, and the output of each job that is read.
const RECOMMENDED: u64 = 256;
const RECOMMENDED_OF_A_JOB: u64 = 2 * OF_A_JOB;

/// How many files a service should be able to open if it runs as many jobs and serves as many connections as it may, over
/// TCP and as many over the unix socket.
pub(crate) fn recommended(max_running: usize, max_connections: usize) -> u64 {
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    RECOMMENDED
        .saturating_add(number(max_running).saturating_mul(RECOMMENDED_OF_A_JOB))
        .saturating_add(number(max_connections).saturating_mul(2))
}

/// How many jobs may run if so many files may be open; at least one.
pub(crate) fn affordable(max_running: usize, open_files: u64) -> usize {
    let places = open_files.saturating_sub(OWN) / OF_A_JOB;
    usize::try_from(places)
        .unwrap_or(usize::MAX)
        .clamp(1, max_running.max(1))
}

/// Why a service cannot run with so few open files, if it cannot: not even one job would start.
pub(crate) fn too_few(open_files: u64) -> Option<String> {
    let wanted = OWN + 4 * OF_A_JOB;
    (open_files < wanted).then(|| {
        format!(
            "the service may have {open_files} open files (RLIMIT_NOFILE, LimitNOFILE= of a unit), and needs {wanted} at least"
        )
    })
}

/// The words for the case that these are fewer than was said.
pub(crate) fn shortage(places: usize, max_running: usize, open_files: u64) -> String {
    let wanted = OWN + OF_A_JOB.saturating_mul(u64::try_from(max_running).unwrap_or(u64::MAX));
    format!(
        "at most {places} jobs run at the same time instead of {max_running}: the service may have {open_files} open files \
         (RLIMIT_NOFILE, LimitNOFILE= of a unit), and --max-running {max_running} needs {wanted}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_jobs_run_as_the_limit_of_open_files_has_room_for() {
        for (open_files, places) in [
            (0, 1),
            (64, 8),
            (128, 24),
            (1024, 248),
            (1056, 256),
            (u64::MAX, 256),
        ] {
            assert_eq!(affordable(256, open_files), places, "{open_files}");
        }
        assert_eq!(affordable(3, 1 << 20), 3);
        assert!(shortage(24, 256, 128).contains("needs 1056"));
        assert_eq!(too_few(48), None);
        assert!(
            too_few(47)
                .is_some_and(|why| why.contains("47 open files") && why.contains("needs 48"))
        );
    }
}

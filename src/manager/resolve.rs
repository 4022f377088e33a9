//! From a spec to a launch: users looked up, the environment composed, what this host cannot give refused.

mod users;

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use nix::unistd::{Gid, User, getegid, geteuid};

use super::readiness;
use super::spans::{self, Sampler};
use crate::Unavailable;
use job::life::Plan;
use job::ready::Sign;
use job::sandbox::Confinement;
use job::sandbox::{Baseline, Features, Mechanism, Part, Refused, Sandbox};
use job::spec::{EnvInherit, IoClass, Spec, Stdin, StdinData};
use job::trace::Trace;
use job::{Job, JobId};
use linux::beneath::Owner;
use linux::tree::JOB_VARIABLE;
use protocol::wire::messages::{Ids, Launch};
use users::{find_group, find_user, own_groups, refuse_groups};

/// The variables that a job gets from the service by default; and every `LC_*`.
const INHERITED: [&str; 8] = [
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR",
];

/// Where a job finds its workspace.
const WORKSPACE_VARIABLE: &str = "PROCESSION_WORKSPACE";

/// The environment with the job's place in its caller's trace, unless the spec says something else about it.
fn traced(
    mut env: Vec<(String, String)>,
    trace: Option<&Trace>,
    spec: &Spec,
) -> Vec<(String, String)> {
    for (name, value) in trace.into_iter().flat_map(Trace::variables) {
        if spec.env.contains_key(name) || spec.secret_env.0.contains_key(name) {
            continue;
        }
        env.retain(|(have, _)| have != name);
        env.push((name.to_owned(), value));
    }
    env
}

/// What this host and this service can give, read once.
#[derive(Debug)]
pub(super) struct Resolver {
    /// The service's own environment, so far as it is text.
    pub(super) environment: BTreeMap<String, String>,
    /// Where a job runs that names no directory.
    pub(super) work_dir: PathBuf,
    /// Where jobs have directories of their own.
    pub(super) workspaces: PathBuf,
    /// The cgroup controllers that can limit a job, or why there are none.
    pub(super) controllers: Result<Vec<String>, String>,
    /// Refuse jobs that would run as root.
    pub(super) deny_root_jobs: bool,
    pub(super) sandbox: Baseline,
    /// What the kernel has for sandboxes.
    pub(super) features: Features,
    /// What a sandbox closes.
    pub(super) state_dir: PathBuf,
    /// Which spans are exported, if any are.
    pub(super) sampler: Option<Sampler>,
}

/// The identity of a job, looked up.
#[derive(Debug)]
struct Identity {
    ids: Option<Ids>,
    /// The passwd entry, where a user was named.
    user: Option<User>,
}

impl Resolver {
    /// Can this host run the spec at all? Blocks on user look-ups where the spec names users.
    fn check(&self, spec: &Spec) -> Result<(), Unavailable> {
        self.check_limits(spec)?;
        check_io_priority(spec)?;
        self.sandbox(spec)?;
        let identity = self.identity(spec)?;
        self.check_way(spec, &identity)
    }

    /// Can the job's user get to its workspace?
    fn check_way(&self, spec: &Spec, identity: &Identity) -> Result<(), Unavailable> {
        let Some(ids) = identity.ids.as_ref().filter(|_| spec.workspace.is_some()) else {
            return Ok(());
        };
        let is_shut = |directory: &Path| {
            let Ok(found) = directory.metadata() else {
                return true;
            };
            let bit = if found.uid() == ids.uid {
                0o100
            } else if found.gid() == ids.gid || ids.groups.contains(&found.gid()) {
                0o010
            } else {
                0o001
            };
            found.mode() & bit == 0
        };
        if ids.uid != 0
            && let Some(shut) = self.workspaces.ancestors().find(|it| is_shut(it))
        {
            let is_ours = shut.starts_with(&self.state_dir) || self.state_dir.starts_with(shut);
            let what = if is_ours {
                "the state directory"
            } else {
                "a directory"
            };
            return Err(Unavailable::Workspace(format!(
                "the job's user cannot reach the workspaces through {what}: start the service with --workspaces-dir and a \
                 directory that other users can enter, and all above it"
            )));
        }
        Ok(())
    }

    /// Whom the files of a job with this spec belong to. Blocks on user look-ups.
    pub(super) fn owner(&self, spec: &Spec) -> Owner {
        let ids = self.identity(spec).ok()?.ids?;
        Some((ids.uid, ids.gid))
    }

    fn workspace(&self, spec: &Spec, id: JobId) -> Option<PathBuf> {
        spec.workspace.map(|_| self.workspaces.join(id.to_string()))
    }

    /// The same where it keeps nobody waiting: user data bases may be on the network.
    pub(super) async fn check_apart(self: &Arc<Self>, spec: &Spec) -> Result<(), Unavailable> {
        if !names_users(spec) {
            return self.check(spec);
        }
        let (resolver, spec) = (self.clone(), spec.clone());
        let checked = tokio::task::spawn_blocking(move || resolver.check(&spec)).await;
        checked.unwrap_or(Ok(()))
    }

    /// The launch of a job, with this spec that holds the real secrets.
    pub(super) async fn launch_apart(
        self: &Arc<Self>,
        job: &Job,
        spec: Spec,
    ) -> Result<Launch, Unavailable> {
        if !names_users(&spec) {
            return self.launch(job, &spec);
        }
        let (resolver, job) = (self.clone(), job.clone());
        let resolved = tokio::task::spawn_blocking(move || resolver.launch(&job, &spec)).await;
        resolved.unwrap_or(Err(Unavailable::RootDenied))
    }

    /// Everything a monitor needs to start the job.
    fn launch(&self, job: &Job, spec: &Spec) -> Result<Launch, Unavailable> {
        self.check_limits(spec)?;
        let sandbox = self.sandbox(spec)?;
        let identity = self.identity(spec)?;
        Ok(Launch {
            job: job.id,
            attempt: job.attempt,
            plan: Plan::from(spec),
            argv: spec.program.argv(),
            env: with_schedule(
                traced(
                    self.environment(
                        job.id,
                        job.attempt,
                        spec,
                        identity.user.as_ref(),
                        sandbox.as_ref(),
                    ),
                    spans::told(job, self.sampler).as_ref(),
                    spec,
                ),
                job,
            ),
            cwd: self.cwd(spec, identity.user.as_ref(), self.workspace(spec, job.id)),
            umask: spec.umask.bits(),
            nice: spec.nice,
            io_priority: spec.io_priority,
            oom_score_adj: spec.oom_score_adj,
            cpu_affinity: spec.cpu_affinity.clone(),
            rlimits: spec
                .rlimits
                .iter()
                .map(|(resource, limit)| (*resource, *limit))
                .collect(),
            ids: identity.ids,
            no_new_privs: spec.no_new_privs,
            sandbox: sandbox.map(|sandbox| Confinement {
                sandbox,
                hidden: self.state_dir.to_string_lossy().into_owned(),
                workspaces: Some(self.workspaces.to_string_lossy().into_owned()),
                owns_work_dir: spec.workspace.is_some(),
                work_dir: self
                    .workspace(spec, job.id)
                    .as_ref()
                    .unwrap_or(&self.work_dir)
                    .to_string_lossy()
                    .into_owned(),
            }),
            limits: spec.limits,
            stdin: stdin(&spec.stdin),
            // A terminal is its own input.
            open_stdin: spec.stdin == Stdin::Open && spec.pty.is_none(),
            pty: spec.pty.clone(),
            log_from: job.attempt_offset(),
            spare: None,
            is_held: false,
            keeps_short: false,
        })
    }

    fn check_limits(&self, spec: &Spec) -> Result<(), Unavailable> {
        let wanted = [
            (
                "memory",
                "/limits/memory_bytes",
                spec.limits.memory_bytes.is_some(),
            ),
            ("cpu", "/limits/cpu", spec.limits.cpu.is_some()),
            ("pids", "/limits/pids", spec.limits.pids.is_some()),
        ];
        for (controller, pointer, _) in wanted.into_iter().filter(|(_, _, wanted)| *wanted) {
            let why = match &self.controllers {
                Ok(controllers) if controllers.iter().any(|name| name == controller) => continue,
                Ok(_) => format!(
                    "the cgroup v2 controller `{controller}` is not available to this service"
                ),
                Err(why) => format!("this service has no cgroup to limit jobs with: {why}"),
            };
            return Err(Unavailable::Containment {
                pointer: pointer.to_owned(),
                why,
            });
        }
        Ok(())
    }

    /// The sandbox of a job with this spec, where this kernel has what it must have.
    fn sandbox(&self, spec: &Spec) -> Result<Option<Sandbox>, Unavailable> {
        let sandbox = self.sandbox.apply(spec).map_err(|refused| match refused {
            Refused::TooLittle(pointer) => Unavailable::SandboxRequired {
                pointer: pointer.to_owned(),
            },
            Refused::NewPrivs => Unavailable::Sandbox {
                pointer: "/no_new_privs".to_owned(),
                why: "the sandbox that jobs of this service get needs no_new_privs; a job may do without both by \
                      \"sandbox\": {\"landlock\": \"off\", \"seccomp\": \"off\"}"
                    .to_owned(),
            },
        })?;
        if let Some(sandbox) = &sandbox
            && sandbox.require
        {
            let missing = sandbox.missing(self.features);
            if !missing.is_empty() {
                let missing: Vec<&str> = missing.into_iter().map(Part::as_str).collect();
                return Err(Unavailable::Sandbox {
                    pointer: "/sandbox".to_owned(),
                    why: format!("the kernel of this host lacks {}", missing.join(", ")),
                });
            }
        }
        Ok(sandbox)
    }

    fn identity(&self, spec: &Spec) -> Result<Identity, Unavailable> {
        let user = spec
            .user
            .as_ref()
            .map(|user| find_user("/user", user))
            .transpose()?;
        let uid = user.as_ref().map_or_else(geteuid, |found| found.uid);
        if self.deny_root_jobs && uid.is_root() {
            return Err(Unavailable::RootDenied);
        }
        if spec.user.is_none() && spec.group.is_none() && spec.supplementary_groups.is_none() {
            return Ok(Identity {
                ids: None,
                user: None,
            });
        }
        let gid = match &spec.group {
            Some(group) => find_group("/group", group)?,
            None => user.as_ref().map_or_else(getegid, |found| found.gid),
        };
        let groups = match (&spec.supplementary_groups, &user) {
            (Some(groups), _) => groups
                .iter()
                .enumerate()
                .map(|(index, group)| find_group(&format!("/supplementary_groups/{index}"), group))
                .collect::<Result<Vec<_>, _>>()?,
            (None, Some(user)) => own_groups(user, gid),
            (None, None) => vec![gid],
        };
        if self.deny_root_jobs {
            let own = user.as_ref().map(|user| own_groups(user, user.gid));
            refuse_groups(spec, own.as_deref(), gid, &groups)?;
        }
        let same = uid == geteuid() && gid == getegid() && spec.supplementary_groups.is_none();
        if !geteuid().is_root() {
            if same {
                return Ok(Identity { ids: None, user });
            }
            let (pointer, what) = if spec.user.is_some() {
                ("/user", "running as another user")
            } else if spec.group.is_some() {
                ("/group", "running with another group")
            } else {
                ("/supplementary_groups", "choosing supplementary groups")
            };
            return Err(Unavailable::NeedsPrivilege {
                pointer: pointer.to_owned(),
                what: what.to_owned(),
            });
        }
        let groups = groups.into_iter().map(Gid::as_raw).collect();
        Ok(Identity {
            ids: Some(Ids {
                uid: uid.as_raw(),
                gid: gid.as_raw(),
                groups,
            }),
            user,
        })
    }

    /// Later ones win: inherited, the user's own, the terminal's, the job's id, `env`, `secret_env`.
    fn environment(
        &self,
        id: JobId,
        attempt: u32,
        spec: &Spec,
        user: Option<&User>,
        sandbox: Option<&Sandbox>,
    ) -> Vec<(String, String)> {
        let inherits = |name: &str| match &spec.env_inherit {
            EnvInherit::Default => INHERITED.contains(&name) || name.starts_with("LC_"),
            EnvInherit::None => false,
            EnvInherit::Names(names) => names.iter().any(|wanted| wanted == name),
        };
        let mut env: BTreeMap<String, String> = self
            .environment
            .iter()
            .filter(|(name, _)| inherits(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if let Some(user) = user {
            let own = [
                ("HOME", user.dir.to_string_lossy().into_owned()),
                ("USER", user.name.clone()),
                ("LOGNAME", user.name.clone()),
                ("SHELL", user.shell.to_string_lossy().into_owned()),
            ];
            env.extend(
                own.into_iter()
                    .filter(|(name, _)| inherits(name))
                    .map(|(name, value)| (name.to_owned(), value)),
            );
        }
        // Service users often live in the state directory: programs could do nothing with that home.
        if sandbox.is_some_and(|sandbox| sandbox.landlock == Mechanism::Default)
            && let Some(home) = env.get_mut("HOME")
            && Path::new(home).starts_with(&self.state_dir)
            && !Path::new(home).starts_with(&self.work_dir)
        {
            let own = self.workspace(spec, id);
            let own = own.as_ref().unwrap_or(&self.work_dir);
            *home = own.to_string_lossy().into_owned();
        }
        if let Some(pty) = &spec.pty {
            env.insert("TERM".to_owned(), pty.term.clone());
        }
        env.insert(JOB_VARIABLE.to_owned(), id.to_string());
        if let Some(own) = self.workspace(spec, id) {
            let own = own.to_string_lossy().into_owned();
            env.insert(WORKSPACE_VARIABLE.to_owned(), own);
        }
        let sign = spec.ready.as_ref().map(|ready| &ready.sign);
        if matches!(sign, Some(Sign::Notify { .. })) {
            let name = format!("@{}", readiness::socket_name(id));
            env.insert(readiness::VARIABLE.to_owned(), name);
        }
        if spec.retry.is_some() || !spec.on_node_loss.is_usual() {
            env.insert("PROCESSION_ATTEMPT".to_owned(), attempt.to_string());
        }
        if let Some(retry) = &spec.retry {
            let most = retry.max_attempts.to_string();
            env.insert("PROCESSION_MAX_ATTEMPTS".to_owned(), most);
        }
        env.extend(spec.env.clone());
        env.extend(spec.secret_env.0.clone());
        env.into_iter().collect()
    }

    /// The default work directory is private to the service: another user starts at home, or at `/`.
    fn cwd(&self, spec: &Spec, user: Option<&User>, own: Option<PathBuf>) -> String {
        match (&spec.cwd, own) {
            (Some(cwd), None) => return cwd.clone(),
            // An absolute one stays what it is.
            (Some(cwd), Some(own)) => return own.join(cwd).to_string_lossy().into_owned(),
            (None, Some(own)) => return own.to_string_lossy().into_owned(),
            (None, None) => {}
        }
        match user {
            Some(user) if user.uid != geteuid() => match user.dir.to_str() {
                Some(home) if Path::new(home).is_dir() => home.to_owned(),
                _ => "/".to_owned(),
            },
            Some(_) | None => {
                // A job that began in it may have removed it.
                let _ = DirBuilder::new().mode(0o700).create(&self.work_dir);
                self.work_dir.to_string_lossy().into_owned()
            }
        }
    }
}

/// The kernel lets root alone go before all others.
fn check_io_priority(spec: &Spec) -> Result<(), Unavailable> {
    let class = spec.io_priority.map(|it| it.class);
    if class == Some(IoClass::Realtime) && !geteuid().is_root() {
        return Err(Unavailable::NeedsPrivilege {
            pointer: "/io_priority/class".to_owned(),
            what: "real-time I/O".to_owned(),
        });
    }
    Ok(())
}

/// The service's own environment as far as it is UTF-8.
pub(super) fn own_environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn stdin(stdin: &Stdin) -> Option<Vec<u8>> {
    match stdin {
        Stdin::Null | Stdin::Open => None,
        Stdin::Data(StdinData::Text(text)) => Some(text.clone().into_bytes()),
        Stdin::Data(StdinData::Base64(text)) => {
            Some(BASE64_STANDARD.decode(text).unwrap_or_default())
        }
    }
}

fn names_users(spec: &Spec) -> bool {
    spec.user.is_some() || spec.group.is_some() || spec.supplementary_groups.is_some()
}

/// Tells a job of a schedule which one that is, and when it was due, unless it says otherwise itself.
fn with_schedule(mut env: Vec<(String, String)>, job: &Job) -> Vec<(String, String)> {
    let Some(schedule) = &job.schedule else {
        return env;
    };
    let due_at = schedule
        .due_at
        .map(|at| ("PROCESSION_DUE_AT", at.to_string()));
    let name = ("PROCESSION_SCHEDULE", schedule.name.clone());
    for (variable, value) in [Some(name), due_at].into_iter().flatten() {
        if !env.iter().any(|(name, _)| name == variable) {
            env.push((variable.to_owned(), value));
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver() -> Resolver {
        let environment = [
            ("PATH", "/bin"),
            ("LC_ALL", "C"),
            ("SECRET_OF_SERVICE", "x"),
            ("HOME", "/root"),
        ];
        Resolver {
            environment: environment
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            work_dir: PathBuf::from("/s/work"),
            workspaces: PathBuf::from("/s/workspaces"),
            sandbox: Baseline::Off,
            features: Features::default(),
            state_dir: PathBuf::from("/s"),
            sampler: None,
            controllers: Err("cgroup v2 is not mounted".to_owned()),
            deny_root_jobs: false,
        }
    }

    #[test]
    fn only_the_documented_variables_are_inherited() {
        let env = resolver().environment(JobId::generate(), 1, &Spec::default(), None, None);
        let names: Vec<&str> = env.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["HOME", "LC_ALL", "PATH", JOB_VARIABLE]);
    }

    #[test]
    fn what_the_job_sets_wins_over_what_it_inherits() {
        let mut spec = Spec {
            env_inherit: EnvInherit::Names(vec!["PATH".into()]),
            ..Spec::default()
        };
        spec.env.insert("PATH".into(), "/mine".into());
        spec.env.insert(JOB_VARIABLE.into(), "mine".into());
        assert_eq!(
            resolver().environment(JobId::generate(), 1, &spec, None, None),
            [("PATH", "/mine"), (JOB_VARIABLE, "mine")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn a_limit_that_cannot_be_kept_is_refused_by_name() {
        let mut spec = Spec::default();
        spec.limits.pids = Some(5);
        match resolver().check(&spec).unwrap_err() {
            Unavailable::Containment { pointer, .. } => assert_eq!(pointer, "/limits/pids"),
            other @ (Unavailable::NoSuchUser { .. }
            | Unavailable::NeedsPrivilege { .. }
            | Unavailable::Sandbox { .. }
            | Unavailable::SandboxRequired { .. }
            | Unavailable::GroupDenied { .. }
            | Unavailable::Workspace(_)
            | Unavailable::RootDenied) => panic!("{other}"),
        }
    }

    #[test]
    fn a_required_sandbox_that_the_kernel_lacks_is_refused_and_another_is_not() {
        let spec = |require| Spec {
            sandbox: Some(Sandbox {
                require,
                ..Sandbox::default()
            }),
            ..Spec::default()
        };
        assert_eq!(resolver().check(&spec(false)), Ok(()));
        let why = "the kernel of this host lacks landlock, seccomp".to_owned();
        let pointer = "/sandbox".to_owned();
        let lacking = Unavailable::Sandbox { pointer, why };
        assert_eq!(resolver().check(&spec(true)), Err(lacking));
        let able = Resolver {
            features: Features {
                landlock_abi: Some(7),
                seccomp: true,
            },
            ..resolver()
        };
        assert_eq!(able.check(&spec(true)), Ok(()));
    }

    #[test]
    fn a_home_in_the_state_directory_is_closed_to_a_sandbox_and_the_work_directory_stands_in() {
        let home = |home: &str, sandbox: Option<&Sandbox>, spec: &Spec| {
            let mut resolver = resolver();
            resolver.environment.insert("HOME".into(), home.into());
            let env = resolver.environment(JobId::generate(), 1, spec, None, sandbox);
            env.into_iter().find(|(name, _)| name == "HOME").unwrap().1
        };
        let sandbox = Some(&Sandbox::default());
        assert_eq!(home("/s", sandbox, &Spec::default()), "/s/work");
        assert_eq!(home("/s/work/me", sandbox, &Spec::default()), "/s/work/me");
        assert_eq!(home("/root", sandbox, &Spec::default()), "/root");
        assert_eq!(home("/s", None, &Spec::default()), "/s");
        let mut own = Spec::default();
        own.env.insert("HOME".into(), "/s".into());
        assert_eq!(home("/s", sandbox, &own), "/s");
    }
}

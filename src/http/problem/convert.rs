//! The errors of the layers below as errors of the API. What those say to a client is not known here.

use super::{ApiError, Place, Violation};
use crate::request::{BodyError, FieldError, code};
use job::life::Refusal;
use manager::{
    BatchError, FilesError, LookupError, NodeError, QueueError, RequestError, ScheduleError,
    SubmitError, Unavailable, UnpackError,
};
use store::StoreError;

impl From<FieldError> for Violation {
    fn from(error: FieldError) -> Self {
        Self {
            place: Place::Pointer(error.pointer),
            code: error.code,
            detail: error.detail,
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if error.full {
            Self::NoRoom
        } else if error.unkept {
            tracing::warn!(%error, "the ledger cannot be used: {error}");
            Self::LedgerUnavailable
        } else if error.failing {
            tracing::warn!(%error, "the store cannot be used: {error}");
            Self::StoreUnavailable
        } else {
            Self::Internal(error.to_string())
        }
    }
}

impl From<Unavailable> for ApiError {
    fn from(error: Unavailable) -> Self {
        let detail = error.to_string();
        match error {
            Unavailable::NoSuchUser { pointer, .. } => Self::NoSuchUser { detail, pointer },
            Unavailable::NeedsPrivilege { pointer, .. } => {
                Self::PrivilegeRequired { detail, pointer }
            }
            Unavailable::GroupDenied { pointer } => Self::PrivilegeRequired { detail, pointer },
            Unavailable::RootDenied => Self::PrivilegeRequired {
                detail,
                pointer: "/user".to_owned(),
            },
            Unavailable::Sandbox { pointer, .. } => Self::SandboxUnavailable { detail, pointer },
            Unavailable::SandboxRequired { pointer } => Self::SandboxRequired { detail, pointer },
            Unavailable::Workspace(detail) => Self::InvalidSpec(vec![Violation {
                place: Place::Pointer("/workspace".to_owned()),
                code: code::INVALID_VALUE,
                detail,
            }]),
            Unavailable::Containment { pointer, .. } => {
                Self::ContainmentUnavailable { detail, pointer }
            }
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::QueueFull => Self::QueueFull,
            SubmitError::KeyTaken(holder) => Self::ConcurrencyConflict(holder),
            SubmitError::TooHeavy(most) => Self::InvalidSpec(vec![Violation {
                place: Place::Pointer("/weight".to_owned()),
                code: code::OUT_OF_RANGE,
                detail: format!("must be at most {most}, which is the most that may run"),
            }]),
            SubmitError::NoSuchDependency(place) => Self::InvalidSpec(vec![Violation {
                place: Place::Pointer(format!("/depends_on/{place}")),
                code: code::NO_SUCH_JOB,
                detail: "names nothing that is there, or whose record has expired".to_owned(),
            }]),
            SubmitError::Draining => Self::Draining,
            SubmitError::RunnerOnly => Self::RunnerOnly,
            SubmitError::UploadsElsewhere(_) => Self::FilesUnavailable(error.to_string()),
            SubmitError::NoNodes => Self::InvalidSpec(vec![Violation {
                place: Place::Pointer("/placement".to_owned()),
                code: code::INVALID_VALUE,
                detail: error.to_string(),
            }]),
            SubmitError::KeyReused => Self::KeyReused,
            SubmitError::Unavailable(unavailable) => unavailable.into(),
            SubmitError::NoRoom => Self::NoRoom,
            SubmitError::Workspace(error) => {
                let error = FilesError::from(error);
                if matches!(error, FilesError::NoRoom) {
                    Self::NoRoom
                } else {
                    Self::Internal(format!("making a workspace: {error}"))
                }
            }
            SubmitError::Input { place, why } => {
                let (code, detail) = match why {
                    FilesError::NoSuchJob => (
                        code::NO_SUCH_JOB,
                        "no job has this id, or its record has expired",
                    ),
                    FilesError::NoWorkspace => ("no_workspace", "the job has no workspace"),
                    FilesError::NotFound => (
                        "file_not_found",
                        "the job has no such file, or does not keep it",
                    ),
                    FilesError::NotAFile => ("not_a_file", "it is not a file of the job"),
                    other @ (FilesError::Exists
                    | FilesError::Finished
                    | FilesError::NoRoom
                    | FilesError::Archive(_)
                    | FilesError::NodeUnreachable
                    | FilesError::Unavailable(_)
                    | FilesError::Io(_)
                    | FilesError::Store(_)) => return other.into(),
                };
                Self::InvalidSpec(vec![Violation {
                    place: Place::Pointer(format!("/inputs/{place}/from")),
                    code,
                    detail: detail.to_owned(),
                }])
            }
            SubmitError::Archive { place, why } => match why {
                UnpackError::Refused(detail) => Self::InvalidSpec(vec![Violation {
                    place: Place::Pointer(format!("/inputs/{place}")),
                    code: "invalid_archive",
                    detail,
                }]),
                other @ (UnpackError::TooLarge(_) | UnpackError::Io(_)) => other.into(),
            },
            SubmitError::Store(error) => error.into(),
        }
    }
}

impl From<LookupError> for ApiError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::NoSuchJob => Self::JobNotFound,
            LookupError::Store(error) => error.into(),
        }
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::NoSuchJob => Self::JobNotFound,
            RequestError::Refused(refusal) => Self::Refused(refusal),
            RequestError::Errno(errno) => Self::SignalFailed(errno),
            RequestError::Changed => Self::PreconditionFailed,
            RequestError::NotQueued => Self::NotQueued,
            RequestError::StdinClosed => Self::StdinClosed,
            RequestError::StdinOffset { expected } => Self::StdinOffset { expected },
            RequestError::NoTerminal => Self::NoTerminal,
            RequestError::DependedOn => Self::DependedOn,
            RequestError::MonitorGone => Self::MonitorUnavailable,
            RequestError::NodeUnreachable => Self::NodeUnreachable,
            RequestError::Store(error) => error.into(),
        }
    }
}

impl From<NodeError> for ApiError {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::NoSuchNode => Self::NodeNotFound,
            NodeError::Connected => Self::NodeConnected,
            NodeError::Io(error) => Self::io("noting the nodes", &error),
            NodeError::Store(error) => error.into(),
        }
    }
}

impl From<FilesError> for ApiError {
    fn from(error: FilesError) -> Self {
        match error {
            FilesError::NoSuchJob => Self::JobNotFound,
            FilesError::NoWorkspace => Self::NoWorkspace,
            FilesError::NotFound => Self::FileNotFound,
            FilesError::NotAFile => Self::NotAFile,
            FilesError::Exists => Self::PreconditionFailed,
            FilesError::Finished => Self::Refused(Refusal::Finished),
            FilesError::NoRoom => Self::NoRoom,
            FilesError::NodeUnreachable => Self::NodeUnreachable,
            FilesError::Unavailable(why) => Self::FilesUnavailable(why),
            FilesError::Archive(error) => error.into(),
            FilesError::Io(error) => Self::io("using the files of a job", &error),
            FilesError::Store(error) => error.into(),
        }
    }
}

impl From<UnpackError> for ApiError {
    fn from(error: UnpackError) -> Self {
        match error {
            UnpackError::Refused(why) => Self::InvalidArchive(why),
            UnpackError::TooLarge(most) => {
                Self::BodyTooLarge(usize::try_from(most).unwrap_or(usize::MAX))
            }
            UnpackError::Io(error) => FilesError::from(error).into(),
        }
    }
}

impl From<BatchError> for ApiError {
    /// What is wrong with one of its jobs is told as if that were all.
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::NoSuchBatch => Self::BatchNotFound,
            BatchError::NotFinished => Self::BatchNotFinished,
            BatchError::Expired => Self::BatchJobsExpired,
            BatchError::Secrets => Self::SecretsUnknown,
            BatchError::DependedOn => Self::DependedOn,
            BatchError::Job(_, error) | BatchError::Submit(error) => error.into(),
            BatchError::Store(error) => error.into(),
        }
    }
}

impl From<QueueError> for ApiError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::NoSuchQueue => Self::QueueNotFound,
            QueueError::InUse => Self::QueueInUse,
            QueueError::Changed => Self::PreconditionFailed,
            QueueError::Store(error) if error.full => Self::NoRoom,
            QueueError::Store(error) if error.failing => error.into(),
            QueueError::Store(error) => error.into(),
        }
    }
}

impl From<ScheduleError> for ApiError {
    fn from(error: ScheduleError) -> Self {
        match error {
            ScheduleError::NoSuchSchedule => Self::ScheduleNotFound,
            ScheduleError::Changed => Self::PreconditionFailed,
            ScheduleError::NotUnderstood(why) => Self::Internal(why),
            ScheduleError::Store(error) if error.full => Self::NoRoom,
            ScheduleError::Store(error) if error.failing => error.into(),
            ScheduleError::Store(error) => error.into(),
        }
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Syntax { detail } => Self::InvalidJson(detail),
            BodyError::TooDeep => Self::InvalidJson("the body is nested too deeply".to_owned()),
            BodyError::Invalid(errors) => {
                Self::InvalidBody(errors.into_iter().map(Violation::from).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::examples;

    #[test]
    fn every_refusal_has_a_code_that_is_listed() {
        let store = |full, failing| StoreError {
            doing: "reading",
            why: "hidden".to_owned(),
            full,
            failing,
            unkept: false,
        };
        let unavailable = Unavailable::Containment {
            pointer: "/limits/pids".to_owned(),
            why: "no pids controller".to_owned(),
        };
        let errors: [(ApiError, u16); 14] = [
            (SubmitError::QueueFull.into(), 429),
            (SubmitError::Draining.into(), 503),
            (SubmitError::KeyReused.into(), 422),
            (SubmitError::Unavailable(unavailable).into(), 422),
            (SubmitError::NoRoom.into(), 507),
            (SubmitError::Store(store(false, false)).into(), 500),
            (SubmitError::Store(store(true, false)).into(), 507),
            (SubmitError::Store(store(false, true)).into(), 503),
            (RequestError::NoSuchJob.into(), 404),
            (RequestError::Refused(Refusal::NotStarted).into(), 409),
            (RequestError::Refused(Refusal::Finished).into(), 409),
            (RequestError::Errno(nix::errno::Errno::EPERM).into(), 409),
            (RequestError::MonitorGone.into(), 503),
            (BodyError::TooDeep.into(), 400),
        ];
        for (error, status) in errors {
            assert_eq!(error.status().as_u16(), status, "{error:?}");
            assert!(
                examples().iter().any(|one| one.code() == error.code()),
                "{error:?}"
            );
            assert!(!error.problem().detail.contains("hidden"), "{error:?}");
        }
    }
}

//! Users and groups by name or number, and which groups a job may not have.

use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::Unavailable;
use job::spec::{NameOrId, Spec};

pub(super) fn find_user(pointer: &str, user: &NameOrId) -> Result<User, Unavailable> {
    let missing = |name: String| Unavailable::NoSuchUser {
        pointer: pointer.to_owned(),
        name,
    };
    match user {
        NameOrId::Name(name) => User::from_name(name)
            .ok()
            .flatten()
            .ok_or_else(|| missing(name.clone())),
        // A number needs no entry: containers often have none.
        NameOrId::Id(id) => {
            let uid = Uid::from_raw(*id);
            Ok(User::from_uid(uid).ok().flatten().unwrap_or_else(|| User {
                name: id.to_string(),
                passwd: std::ffi::CString::default(),
                uid,
                gid: Gid::from_raw(*id),
                gecos: std::ffi::CString::default(),
                dir: PathBuf::from("/"),
                shell: PathBuf::from("/bin/sh"),
            }))
        }
    }
}

pub(super) fn find_group(pointer: &str, group: &NameOrId) -> Result<Gid, Unavailable> {
    match group {
        NameOrId::Id(id) => Ok(Gid::from_raw(*id)),
        NameOrId::Name(name) => match Group::from_name(name) {
            Ok(Some(found)) => Ok(found.gid),
            Ok(None) | Err(_) => Err(Unavailable::NoSuchUser {
                pointer: pointer.to_owned(),
                name: name.clone(),
            }),
        },
    }
}

/// Without root, a job gets no group of root, and none that its user is not in: those open files that are root's
/// or somebody else's.
pub(super) fn refuse_groups(
    spec: &Spec,
    own: Option<&[Gid]>,
    gid: Gid,
    groups: &[Gid],
) -> Result<(), Unavailable> {
    const ROOT: Gid = Gid::from_raw(0);
    let may = |group: &Gid| *group != ROOT && own.is_none_or(|own| own.contains(group));
    let denied = |pointer: String| Err(Unavailable::GroupDenied { pointer });
    if !may(&gid) {
        let pointer = if spec.group.is_some() {
            "/group"
        } else {
            "/user"
        };
        return denied(pointer.to_owned());
    }
    match groups.iter().position(|group| !may(group)) {
        Some(index) if spec.supplementary_groups.is_some() => {
            denied(format!("/supplementary_groups/{index}"))
        }
        Some(_) => denied("/user".to_owned()),
        None => Ok(()),
    }
}

pub(super) fn own_groups(user: &User, gid: Gid) -> Vec<Gid> {
    std::ffi::CString::new(user.name.as_str())
        .ok()
        .and_then(|name| getgrouplist(&name, gid).ok())
        .unwrap_or_else(|| vec![gid])
}

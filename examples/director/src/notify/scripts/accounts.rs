//! Who runs a script: names become numbers before anything is forked.

use std::ffi::CString;

use nix::unistd::{Group, User, getegid, geteuid, getgrouplist};

/// A user with its groups, as numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Account {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Account {
    /// Finds a user by its name, and the group by its own or, without one, the user's. A colon before the group's name, or alone, asks
    /// for the user's supplementary groups, as `with_groups` does; otherwise there are none.
    ///
    /// # Errors
    ///
    /// There is no such user or group, or nobody can tell.
    pub fn find(name: &str, group: Option<&str>, with_groups: bool) -> Result<Self, AccountError> {
        let user = User::from_name(name)
            .map_err(|error| AccountError::Lookup(name.to_owned(), error))?
            .ok_or_else(|| AccountError::NoUser(name.to_owned()))?;
        let colon = group.and_then(|group| group.strip_prefix(':'));
        let gid = match colon.or(group).filter(|group| !group.is_empty()) {
            None => user.gid,
            Some(group) => {
                Group::from_name(group)
                    .map_err(|error| AccountError::Lookup(group.to_owned(), error))?
                    .ok_or_else(|| AccountError::NoGroup(group.to_owned()))?
                    .gid
            }
        };
        let mut groups = Vec::new();
        if with_groups || colon.is_some() {
            let name_of_c =
                CString::new(name).map_err(|_| AccountError::NoUser(name.to_owned()))?;
            let of_user = getgrouplist(&name_of_c, gid)
                .map_err(|error| AccountError::Lookup(name.to_owned(), error))?;
            groups = of_user.into_iter().map(|group| group.as_raw()).collect();
        }
        Ok(Self {
            uid: user.uid.as_raw(),
            gid: gid.as_raw(),
            groups,
        })
    }

    /// Whether a user of this name exists.
    pub fn exists(name: &str) -> bool {
        matches!(User::from_name(name), Ok(Some(_)))
    }

    /// The director's own, without its supplementary groups.
    pub fn own() -> Self {
        Self {
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
            groups: Vec::new(),
        }
    }

    /// Whether it is the director's own user and group: there is nothing to change then, and no right to change it needed.
    pub fn is_own(&self) -> bool {
        self.uid == geteuid().as_raw() && self.gid == getegid().as_raw()
    }

    /// Whether files must be protected as from root.
    pub fn is_root(&self) -> bool {
        self.uid == 0 || self.gid == 0 || self.groups.contains(&0)
    }
}

/// Why nobody can run a script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// No such user.
    #[error("there is no user `{0}`")]
    NoUser(String),
    /// No such group.
    #[error("there is no group `{0}`")]
    NoGroup(String),
    /// The system's lists of users and groups could not be asked.
    #[error("user or group `{0}` can't be looked up")]
    Lookup(String, #[source] nix::errno::Errno),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_its_own_group_and_no_others_unless_asked() {
        let root = Account::find("root", None, false).unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups.is_empty());
        assert!(root.is_root());
        for with_groups in [
            Account::find("root", None, true),
            Account::find("root", Some(":"), false),
            Account::find("root", Some(":root"), false),
        ] {
            assert!(with_groups.unwrap().groups.contains(&0));
        }
    }

    #[test]
    fn unknown_names_are_told() {
        assert_eq!(
            Account::find("no-such-user", None, false),
            Err(AccountError::NoUser("no-such-user".to_owned()))
        );
        assert_eq!(
            Account::find("root", Some("no-such-group"), false),
            Err(AccountError::NoGroup("no-such-group".to_owned()))
        );
        assert!(Account::find("a\0b", None, false).is_err());
    }
}

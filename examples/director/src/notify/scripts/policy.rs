//! Which scripts may be run, and as whom: `script_user`, `enable_script_security` and the files themselves.

use std::env;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use lvs_conf::model::{GlobalDefs, Script};

use super::{Account, AccountError, Command};

/// What the configuration says about all scripts, with its names looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    default: Result<Account, Refusal>,
    is_secure: bool,
    keeps_symlinks: bool,
    sets_groups: bool,
}

/// A script that may be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// What to run.
    pub command: Command,
    /// What is worth a warning.
    pub remarks: Vec<Remark>,
}

/// Something about a script that runs all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remark {
    /// The command names no directory: what is found in `PATH` can change.
    FoundInPath(PathBuf),
    /// It runs as root and others can change it.
    Insecure(Insecure),
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FoundInPath(path) => {
                write!(f, "found as {}: write the whole path", path.display())
            }
            Self::Insecure(insecure) => {
                write!(
                    f,
                    "{insecure}, and it runs as root: `enable_script_security` would refuse it"
                )
            }
        }
    }
}

/// A file or directory that others than root can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insecure {
    /// Which one.
    pub path: PathBuf,
    /// Who can.
    pub fault: &'static str,
}

impl fmt::Display for Insecure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path.display(), self.fault)
    }
}

/// Why a script is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The command is empty.
    #[error("there is no command")]
    Empty,
    /// It is nowhere in `PATH`.
    #[error("{0} is not found in PATH")]
    NotInPath(String),
    /// It is not there, or can't be reached.
    #[error("{} can't be used: {error}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::ErrorKind,
    },
    /// It is a directory or another thing that can't be run.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// The user may not execute it.
    #[error("{} is not executable for the user that should run it", .0.display())]
    NotExecutable(PathBuf),
    /// `enable_script_security` holds and others can change it.
    #[error("{0}, and it would run as root: refused because of `enable_script_security`")]
    Insecure(Insecure),
    /// Nobody to run it as.
    #[error("nobody can run it: {0}")]
    Account(#[from] AccountError),
    /// `enable_script_security` holds, and nothing names a user.
    #[error(
        "nobody can run it: with `enable_script_security` a `script_user` or a user `{DEFAULT_USER}` is needed"
    )]
    NoDefault,
}

impl Refusal {
    /// Whether there is a script that only must not run: what is missing is another mistake.
    pub fn is_about_security(&self) -> bool {
        matches!(self, Self::Insecure(_) | Self::NoDefault)
    }
}

impl Policy {
    /// Of this configuration, on this host, now.
    pub fn new(global: &GlobalDefs) -> Self {
        let sets_groups = global.set_supplementary_groups;
        let find = |name: &str, group: Option<&str>| {
            Account::find(name, group, sets_groups).map_err(Refusal::from)
        };
        let default = match &global.script_user {
            Some(user) => find(&user.name, user.group.as_deref()),
            None if Account::exists(DEFAULT_USER) => find(DEFAULT_USER, None),
            None if global.enable_script_security => Err(Refusal::NoDefault),
            None => Ok(Account::own()),
        };
        Self {
            default,
            is_secure: global.enable_script_security,
            keeps_symlinks: global.use_symlink_paths,
            sets_groups,
        }
    }

    /// Whether `enable_script_security` holds.
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// What is to be run for this script.
    ///
    /// # Errors
    ///
    /// It must not or can't be run.
    pub fn check(&self, script: &Script) -> Result<Checked, Refusal> {
        let account = match &script.user {
            Some(user) => Account::find(&user.name, user.group.as_deref(), self.sets_groups)?,
            None => self.default.clone()?,
        };
        let (name, arguments) = script.command.split_first().ok_or(Refusal::Empty)?;
        if let Some(tested) = tested_file(name, arguments) {
            return Ok(Checked {
                command: Command {
                    program: SHELL.into(),
                    // `$0` keeps the path out of the shell's own language.
                    arguments: vec!["-c".into(), ": <\"$0\"".into(), tested.into()],
                    account: Some(account),
                },
                remarks: Vec::new(),
            });
        }
        let mut remarks = Vec::new();
        let written = if name.contains('/') {
            std::path::absolute(name).map_err(|error| unusable(name, &error))?
        } else {
            let found =
                find_in_path(name, &account).ok_or_else(|| Refusal::NotInPath(name.clone()))?;
            remarks.push(Remark::FoundInPath(found.clone()));
            found
        };
        let resolved = fs::canonicalize(&written).map_err(|error| unusable(&written, &error))?;
        let metadata = fs::metadata(&resolved).map_err(|error| unusable(&resolved, &error))?;
        if !metadata.is_file() {
            return Err(Refusal::NotAFile(resolved));
        }
        if !may_execute(&resolved, &account) {
            return Err(Refusal::NotExecutable(resolved));
        }
        let runs_as_root = account.is_root()
            || (metadata.mode() & SET_USER != 0 && metadata.uid() == 0)
            || (metadata.mode() & SET_GROUP != 0 && metadata.gid() == 0);
        if runs_as_root && let Some(insecure) = insecure(&written).or_else(|| insecure(&resolved)) {
            if self.is_secure {
                return Err(Refusal::Insecure(insecure));
            }
            remarks.push(Remark::Insecure(insecure));
        }
        Ok(Checked {
            command: Command {
                program: if self.keeps_symlinks {
                    written
                } else {
                    resolved
                },
                arguments: arguments.iter().map(Into::into).collect(),
                account: Some(account),
            },
            remarks,
        })
    }
}

/// `</path` or `< /path`: success means that the file can be opened.
fn tested_file<'a>(name: &'a str, arguments: &'a [String]) -> Option<&'a str> {
    let path = match (name.strip_prefix('<')?, arguments) {
        ("", [path]) => path,
        (path, []) => path,
        _ => return None,
    };
    path.starts_with('/').then_some(path)
}

fn unusable(path: impl AsRef<Path>, error: &io::Error) -> Refusal {
    Refusal::Unusable {
        path: path.as_ref().to_owned(),
        error: error.kind(),
    }
}

fn find_in_path(name: &str, account: &Account) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|file| file.is_file() && may_execute(file, account))
}

/// Whether the account may enter every directory on the way and execute the file. Access lists beyond the mode are not read.
fn may_execute(file: &Path, account: &Account) -> bool {
    file.ancestors().enumerate().all(|(above, path)| {
        fs::metadata(path).is_ok_and(|metadata| {
            // Root searches every directory, and executes what anybody may.
            let is_allowed_all =
                account.uid == 0 && (above > 0 || metadata.permissions().mode() & EXECUTE_ANY != 0);
            is_allowed_all || has_bit(&metadata, account)
        })
    })
}

fn has_bit(metadata: &Metadata, account: &Account) -> bool {
    let mode = metadata.mode();
    let shift = if metadata.uid() == account.uid {
        6
    } else if metadata.gid() == account.gid || account.groups.contains(&metadata.gid()) {
        3
    } else {
        0
    };
    mode >> shift & 1 != 0
}

/// The first of the path's directories, or the file itself, that others than root can change.
fn insecure(path: &Path) -> Option<Insecure> {
    let mut at = PathBuf::new();
    path.components().find_map(|component| {
        // Absolute paths without `..` come here, or with one whose directory was looked at before it.
        at.push(component);
        if component == Component::ParentDir {
            return None;
        }
        let fault = match fs::metadata(&at) {
            Ok(metadata) => fault_of(&metadata)?,
            Err(_) => "can't be looked at",
        };
        Some(Insecure {
            path: at.clone(),
            fault,
        })
    })
}

fn fault_of(metadata: &Metadata) -> Option<&'static str> {
    let mode = metadata.mode();
    if metadata.uid() != 0 {
        return Some("does not belong to root");
    }
    if metadata.is_dir() && mode & STICKY != 0 {
        return None;
    }
    if mode & WRITE_OTHERS != 0 {
        return Some("can be written by everybody");
    }
    if mode & WRITE_GROUP != 0 && metadata.gid() != 0 {
        return Some("can be written by a group that is not root's");
    }
    None
}

/// keepalived's.
const DEFAULT_USER: &str = "keepalived_script";
const SHELL: &str = "/bin/sh";
/// Where the C library looks without a `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const WRITE_GROUP: u32 = 0o020;
const WRITE_OTHERS: u32 = 0o002;
const EXECUTE_ANY: u32 = 0o111;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::place::Place;

    fn policy(change: impl FnOnce(&mut GlobalDefs)) -> Policy {
        let mut global = GlobalDefs::default();
        change(&mut global);
        let mut policy = Policy::new(&global);
        // Whatever accounts this host has.
        if global.script_user.is_none() && !global.enable_script_security {
            policy.default = Ok(Account::own());
        }
        policy
    }

    fn script(command: &[&str]) -> Script {
        Script {
            command: command.iter().map(|&word| word.to_owned()).collect(),
            user: None,
        }
    }

    fn is_root() -> bool {
        Account::own().uid == 0
    }

    #[test]
    fn a_plain_program_is_run_as_it_stands() {
        let checked = policy(|_| ())
            .check(&script(&["/bin/sh", "-c", "a b"]))
            .unwrap();
        let shell = fs::canonicalize("/bin/sh").unwrap();
        assert_eq!(checked.command.program, shell);
        assert_eq!(checked.command.arguments, ["-c", "a b"]);
        let kept = policy(|global| global.use_symlink_paths = true);
        let checked = kept.check(&script(&["/bin/sh"])).unwrap();
        assert_eq!(checked.command.program, Path::new("/bin/sh"));
    }

    #[test]
    fn a_program_without_path_is_found_and_remarked_on() {
        let checked = policy(|_| ()).check(&script(&["sh"])).unwrap();
        assert!(matches!(checked.remarks[..], [Remark::FoundInPath(_), ..]));
        let refusal = policy(|_| ())
            .check(&script(&["no-such-program-here"]))
            .unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "no-such-program-here is not found in PATH"
        );
    }

    #[test]
    fn what_cannot_be_run_says_why() {
        let place = Place::new();
        let check = |path: &str| policy(|_| ()).check(&script(&[path])).unwrap_err();
        let gone = format!("{}/gone", place.0.display());
        assert_eq!(
            check(&gone).to_string(),
            format!("{gone} can't be used: entity not found")
        );
        let plain = place.file("plain", "", 0o644);
        assert_eq!(
            check(&plain).to_string(),
            format!("{plain} is not executable for the user that should run it")
        );
        let directory = place.0.display().to_string();
        assert_eq!(
            check(&directory).to_string(),
            format!("{directory} is not a regular file")
        );
    }

    #[test]
    fn a_file_that_can_be_opened_is_asked_of_a_shell() {
        for command in [&["</a b"][..], &["<", "/a b"]] {
            let checked = policy(|_| ()).check(&script(command)).unwrap();
            assert_eq!(checked.command.program, Path::new("/bin/sh"));
            assert_eq!(checked.command.arguments, ["-c", ": <\"$0\"", "/a b"]);
        }
    }

    #[test]
    fn what_others_can_change_is_refused_for_root_with_security_and_remarked_on_without() {
        if !is_root() {
            eprintln!("skipped: not root");
            return;
        }
        let place = Place::new();
        fs::set_permissions(&place.0, fs::Permissions::from_mode(0o755)).unwrap();
        let secure = policy(|global| {
            global.enable_script_security = true;
            global.script_user = Some(lvs_conf::model::ScriptUser {
                name: "root".to_owned(),
                group: None,
            });
        });
        let good = place.script("good", "");
        assert_eq!(secure.check(&script(&[&good])).unwrap().remarks, []);
        let open = place.file("open", "", 0o777);
        let expected = Insecure {
            path: open.clone().into(),
            fault: "can be written by everybody",
        };
        assert_eq!(
            secure.check(&script(&[&open])),
            Err(Refusal::Insecure(expected.clone()))
        );
        let loose = policy(|_| ()).check(&script(&[&open])).unwrap();
        assert_eq!(loose.remarks, [Remark::Insecure(expected)]);
        // The directory counts as well as the file, and so does what a link leads to.
        let link = place.0.join("link");
        std::os::unix::fs::symlink(&open, &link).unwrap();
        assert!(secure.check(&script(&[link.to_str().unwrap()])).is_err());
        fs::set_permissions(&place.0, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(secure.check(&script(&[&good])).is_err());
        fs::set_permissions(&place.0, fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(secure.check(&script(&[&good])).is_ok());
    }

    #[test]
    fn with_security_somebody_must_be_named() {
        if Account::exists(DEFAULT_USER) {
            return;
        }
        let secure = policy(|global| global.enable_script_security = true);
        assert_eq!(secure.check(&script(&["/bin/sh"])), Err(Refusal::NoDefault));
    }

    #[test]
    fn a_user_that_does_not_exist_is_told() {
        let mut wanted = script(&["/bin/sh"]);
        wanted.user = Some(lvs_conf::model::ScriptUser {
            name: "no-such-user".to_owned(),
            group: None,
        });
        assert_eq!(
            policy(|_| ()).check(&wanted).unwrap_err().to_string(),
            "nobody can run it: there is no user `no-such-user`"
        );
    }
}

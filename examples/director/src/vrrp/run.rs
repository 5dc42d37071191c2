//! VRRP by itself: `director --vrrp`, keepalived's option of the same name.

use std::os::fd::AsFd;
use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;
use tracing::{error, info, warn};

use super::dump::{self, Dump};
use super::{Claims, Converted, News, Vrrp, convert, log};
use crate::app::{RunError, lifecycle};
use crate::config::{ConfigFile, ReadError};
use crate::logging::{LogOptions, chain};
use crate::namespace;
use crate::notify::scripts::{Limits, Policy, Runner};
use crate::notify::{Actions, Event, Notifier};
use crate::pid_file::PidFile;
use crate::service_manager::{self, State};
use crate::statics::Statics;
use crate::sys::{readable, watch};

/// Options of `--vrrp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VrrpOptions {
    /// The keepalived.conf to run.
    pub file: PathBuf,
    /// What `@ID` lines are for (`-i`); `None`: the host's name.
    pub config_id: Option<String>,
    /// The network namespace to enter (`-s`); `None`: the file's, or the present one.
    pub namespace: Option<String>,
    /// Where log lines go.
    pub log: LogOptions,
    /// Where the process's number is written (`-p`).
    pub pid_file: Option<PathBuf>,
}

/// Runs the `vrrp_instance` blocks of a file and nothing else, until told to end. SIGHUP reads the file again; a file with new errors
/// changes nothing. SIGUSR1 and SIGUSR2 write
/// states and counters into files.
///
/// # Errors
///
/// What kept it from starting; nothing is left behind then.
pub fn run(options: &VrrpOptions) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    runtime.block_on(serve(options))
}

async fn serve(options: &VrrpOptions) -> Result<(), RunError> {
    let read = || ConfigFile::read(&options.file, options.config_id.as_deref());
    let mut file = namespace::read_within(options.namespace.as_deref(), read)?;
    file.log_diagnostics();
    if !file.is_usable() {
        return Err(RunError::Unusable);
    }
    let listen = |kind| signal(kind).map_err(RunError::Signals);
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let mut data = listen(SignalKind::user_defined1())?;
    let mut statistics = listen(SignalKind::user_defined2())?;
    let (sender, mut news) = unbounded_channel();
    let converted = convert(file.config());
    let mut remarks = Vec::new();
    remark(&mut remarks, &converted);
    let scripts = Runner::start(Limits::default()).map_err(RunError::Scripts)?;
    let policy = Policy::new(&file.config().global);
    lifecycle::begin(&scripts, &policy, file.config()).await;
    let no_listeners = tokio::sync::broadcast::channel(1).0;
    let notifier = Notifier::start(scripts.clone(), actions(&file), no_listeners);
    let mut statics = Statics::open().map_err(RunError::Addresses)?;
    let static_changes = watch(statics.as_fd()).map_err(RunError::Watch)?;
    statics.set(&converted.statics);
    let vrrp = Vrrp::start(converted, Claims::None, scripts, sender)?;
    let _pid_file = options.pid_file.as_deref().and_then(PidFile::write);
    service_manager::tell(State::Ready);
    info!("running VRRP of {}", options.file.display());
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = data.recv() => write(&vrrp, Dump::Data).await,
            _ = statistics.recv() => write(&vrrp, Dump::Statistics).await,
            () = readable(&static_changes) => statics.follow(),
            // Nothing comes any more from a thread that has failed; the kernel keeps no address of it.
            next = news.recv() => match next {
                Some(next) => tell(&notifier, &next),
                None => return Err(RunError::VrrpEnded),
            },
            _ = hangup.recv() => {
                service_manager::tell(State::Reloading);
                match reload(read(), &file, &vrrp, &mut statics, &mut remarks) {
                    Ok(next) => {
                        notifier.configure(actions(&next));
                        file = next;
                        info!("reload done");
                    }
                    Err(faults) => faults.iter().for_each(|fault| error!("reload refused: {fault}")),
                }
                service_manager::tell(State::Ready);
            },
        }
    }
    info!("ending");
    service_manager::tell(State::Stopping);
    // It leaves with priority 0 where it is Active.
    drop(vrrp);
    statics.clear();
    while let Ok(last) = news.try_recv() {
        tell(&notifier, &last);
    }
    lifecycle::end(&notifier, file.config()).await;
    Ok(())
}

/// Has VRRP do what a file says that was read anew; or why it does not, in lines.
fn reload(
    read: Result<ConfigFile, ReadError>,
    before: &ConfigFile,
    vrrp: &Vrrp,
    statics: &mut Statics,
    remarks: &mut Vec<String>,
) -> Result<ConfigFile, Vec<String>> {
    let next = read.map_err(|error| vec![chain(&error)])?;
    let faults = next.new_errors(before);
    if !faults.is_empty() {
        return Err(faults);
    }
    if !next.is_usable() {
        return Err(vec!["the configuration can't be used".to_owned()]);
    }
    let converted = convert(next.config());
    converted.check().map_err(|error| vec![chain(&error)])?;
    next.log_new_warnings(before);
    remark(remarks, &converted);
    statics.set(&converted.statics);
    vrrp.reload(converted);
    Ok(next)
}

fn actions(file: &ConfigFile) -> Actions {
    Actions::new(file.config(), &Policy::new(&file.config().global))
}

fn tell(notifier: &Notifier, news: &News) {
    log(news);
    if let Some(event) = Event::of_vrrp(news) {
        notifier.tell(event);
    }
}

/// What has no effect is said once.
fn remark(said: &mut Vec<String>, converted: &Converted) {
    for remark in &converted.remarks {
        if !said.contains(remark) {
            warn!("{remark}");
        }
    }
    said.clone_from(&converted.remarks);
}

async fn write(vrrp: &Vrrp, what: Dump) {
    if let Ok(all) = vrrp.status().await {
        dump::write(what, &all);
    }
}

//! Scripts of the director's own begin and end.

use std::time::Duration;

use lvs_conf::Config;
use lvs_conf::model::Script;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::notify::Notifier;
use crate::notify::scripts::{Exit, Limits, Policy, Purpose, Runner};

/// `startup_script`: the rest waits for it, not longer than its timeout.
pub(crate) async fn begin(runner: &Runner, policy: &Policy, config: &Config) {
    let global = &config.global;
    if let Some(script) = &global.startup_script {
        let limit = global.startup_script_timeout;
        run("startup_script", runner, policy, script, limit).await;
    }
}

/// What notifications are still due, and then `shutdown_script`. Nothing runs any more when it returns.
pub(crate) async fn end(notifier: &Notifier, config: &Config) {
    notifier.stop().await;
    let global = &config.global;
    if let Some(script) = &global.shutdown_script {
        // The other one has ended with the notifications.
        match Runner::start(Limits::default()) {
            Ok(runner) => {
                let policy = Policy::new(global);
                let limit = global.shutdown_script_timeout;
                run("shutdown_script", &runner, &policy, script, limit).await;
            }
            Err(error) => warn!("shutdown_script is not run: {error}"),
        }
    }
}

async fn run(name: &str, runner: &Runner, policy: &Policy, script: &Script, limit: Duration) {
    let checked = match policy.check(script) {
        Ok(checked) => checked,
        Err(refusal) => return warn!("{name} is left out: {refusal}"),
    };
    for remark in &checked.remarks {
        warn!("{name}: {remark}");
    }
    let (sender, ended) = oneshot::channel();
    let purpose = Purpose::Notification;
    let _ = runner.run(purpose, checked.command, Some(limit), move |ended| {
        let _ = sender.send(ended);
    });
    match ended.await {
        Ok(ended) if ended.was_stopped => warn!("{name} took longer than {limit:?} and was ended"),
        Ok(ended) if ended.exit == Exit::Code(0) => info!("{name} done"),
        Ok(ended) => warn!("{name} {}", ended.exit),
        Err(_) => warn!("{name} was not run"),
    }
}

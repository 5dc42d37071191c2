//! The configuration in force becomes another one.

use std::time::Instant;

use lvs_conf::Config;
use lvs_conf::diff::{Change, diff};
use lvs_fwd::view::TunnelOptions;
use lvs_sched::{ServiceKey, Timeouts};
use tracing::{error, info, warn};

use super::{App, RunError};
use crate::acted_on::NoEffect;
use crate::beside::Beside;
use crate::claims::{self, Terms};
use crate::cli::RunOptions;
use crate::config::ConfigFile;
use crate::logging::chain;
use crate::notify::event::ReloadEvent;
use crate::notify::scripts::Policy;
use crate::notify::{Actions, Event};
use crate::plan::Plan;
use crate::service_manager::{self, State};
use crate::tunables::{self, Setting};
use crate::vrrp;

impl App {
    /// Reads the file again. A file that is worse than the one in force changes nothing. What came of it, in one sentence; as an error
    /// if the file is not in force, or not wholly.
    pub(super) async fn reload(&mut self) -> Result<&'static str, String> {
        service_manager::tell(State::Reloading);
        let outcome = self.try_reload().await;
        service_manager::tell(State::Ready);
        match &outcome {
            Ok(done) => info!("{done}"),
            Err(reason) => error!("{reason}"),
        }
        let summary = outcome.clone().map_or_else(|reason| reason, str::to_owned);
        self.notifier.tell(Event::Reload(ReloadEvent {
            is_done: outcome.is_ok(),
            summary,
        }));
        outcome
    }

    async fn try_reload(&mut self) -> Result<&'static str, String> {
        const REFUSED: &str = "reload refused, the running configuration stays";
        let refused = |reason: String| format!("{REFUSED}: {reason}");
        let file = ConfigFile::read(&self.options.file, self.options.config_id.as_deref())
            .map_err(|error| refused(chain(&error)))?;
        let new_errors = file.new_errors(&self.file);
        if !new_errors.is_empty() || !file.is_usable() {
            for error in &new_errors {
                error!("{error}");
            }
            return Err(refused(format!(
                "{} has {} new errors",
                self.options.file.display(),
                new_errors.len()
            )));
        }
        file.log_new_warnings(&self.file);
        let beside = Beside::read(&self.options.file).map_err(|faults| {
            for fault in &faults {
                error!("{fault}");
            }
            REFUSED.to_owned()
        })?;
        let plan = plan(&self.options, file.config());
        plan.vrrp.check().map_err(|error| refused(chain(&error)))?;
        let no_effect = NoEffect::of(file.tree());
        if no_effect != self.no_effect {
            warn_of(&no_effect);
            self.no_effect = no_effect;
        }
        let changes = diff(self.file.config(), file.config());
        // Also of an unchanged file: scripts and users on the host may be others.
        let policy = Policy::new(&file.config().global);
        let actions = Actions::new(file.config(), &policy);
        if plan == self.plan && beside == self.beside && !self.is_incomplete {
            self.notifier.configure(actions);
            self.file = file;
            if changes.is_empty() {
                return Ok("reload: nothing has changed");
            }
            log_changes(&changes);
            return Ok("reload done, no service, server or address has changed");
        }
        log_changes(&changes);
        self.apply(plan, beside, actions)
            .await
            .map_err(|error| refused(chain(&error)))?;
        self.file = file;
        Ok("reload done")
    }

    /// Makes everything what the plan says, as one transaction. What can fail comes first, while nothing has changed:
    /// the claim grows to what is and what will be, and VRRP starts if there was none. Then replies of new servers are
    /// claimed before the first packet goes to one of them; new services are there before packets are taken to them, and
    /// addresses come when both are. What is no longer wanted goes the other way round.
    ///
    /// # Errors
    ///
    /// What was refused; everything is as it was.
    pub(super) async fn apply(
        &mut self,
        plan: Plan,
        beside: Beside,
        actions: Actions,
    ) -> Result<(), RunError> {
        for remark in plan
            .remarks
            .iter()
            .filter(|remark| !self.plan.remarks.contains(remark))
        {
            warn!("{remark}");
        }
        let mut marks = self.marks.clone();
        let has_new_rules = marks.set_file(&beside.marks);
        let mut servers = claims::present(&self.scheduler, &self.plan, &self.terms(&self.plan));
        let terms = Terms::new(marks.rules(), &plan, &self.held);
        let planned = claims::planned(&plan, &terms);
        self.data_path.grow_claims(&planned.joined(&servers))?;
        let vrrp_starts = match self.start_vrrp(&plan) {
            Ok(starts) => starts,
            Err(error) => {
                self.data_path.shrink_claims()?;
                return Err(error.into());
            }
        };

        // Before anything happens that it may want to be told of.
        self.notifier.configure(actions);
        // What was set by hand stays until the configuration says something else.
        if plan.timeouts != self.plan.timeouts {
            self.scheduler.set_timeouts(Timeouts {
                tcp: plan.timeouts.tcp.unwrap_or_default(),
                tcp_fin: plan.timeouts.tcp_fin.unwrap_or_default(),
                udp: plan.timeouts.udp.unwrap_or_default(),
            });
        }
        self.marks = marks;
        if has_new_rules {
            info!("{} rules of marks", beside.marks.len());
        }
        self.take_tunables(&beside);
        self.beside = beside;
        for server in planned.servers() {
            servers.insert_server(server);
        }
        self.data_path.show_claims(servers).await;
        self.tunnels.follow(&self.plan.tunnels, &plan.tunnels);
        self.pools.apply(Instant::now(), &plan);
        let wanted = claims::present(&self.scheduler, &plan, &terms);
        self.remark_unmarked();
        self.data_path.show_claims(wanted).await;
        let shrunk = self.data_path.shrink_claims();
        self.addresses.set(&plan.addresses);
        self.statics.set(&plan.vrrp.statics);
        if !vrrp_starts {
            self.follow_vrrp(&plan);
        }
        self.plan = plan;
        self.follow_tunables();
        self.handle_system_change();
        self.is_incomplete = shrunk.is_err();
        if let Err(error) = shrunk {
            warn!(
                "more packets than needed come by the director until the next reload: {}",
                chain(&error)
            );
        }
        Ok(())
    }

    /// A service for packets that nobody marks is a mistake, and easily made.
    pub(super) fn remark_unmarked(&mut self) {
        let services = self.scheduler.services();
        let keys: Vec<ServiceKey> = services
            .iter()
            .filter_map(|service| service.key())
            .collect();
        let unmarked = claims::without_rule(&keys, &self.marks.rules());
        for key in unmarked.iter().filter(|key| !self.unmarked.contains(key)) {
            warn!("{}", claims::remark_without_rule(key));
        }
        self.unmarked = unmarked;
    }

    /// Tunables that the file sets otherwise than before; those by hand stay.
    fn take_tunables(&self, beside: &Beside) {
        let mut tunables = self.scheduler.tunables();
        let mut change = |setting: &Setting| {
            info!("{} = {}", setting.name, setting.value);
            tunables::set(&mut tunables, setting);
        };
        for before in &self.beside.tunables {
            if !beside
                .tunables
                .iter()
                .any(|after| after.name == before.name)
            {
                tunables::default_of(before.name)
                    .iter()
                    .for_each(&mut change);
            }
        }
        for after in &beside.tunables {
            if !self.beside.tunables.contains(after) {
                change(after);
            }
        }
        self.scheduler.set_tunables(tunables);
    }

    /// What the data path makes of tunables.
    pub(super) fn follow_tunables(&mut self) {
        self.data_path.set_tunnels(TunnelOptions {
            path_mtu_discovery: self.scheduler.tunables().pmtu_disc,
        });
    }
}

/// What the file asks for, as far as the options let it.
pub(super) fn plan(options: &RunOptions, config: &Config) -> Plan {
    let mut plan = Plan::new(config);
    if options.without_vrrp {
        plan.vrrp = vrrp::convert_checks(config);
    }
    plan
}

pub(super) fn warn_of(no_effect: &NoEffect) {
    if !no_effect.is_empty() {
        warn!("no effect yet: {no_effect}");
    }
}

/// A line for each change, as long as they say something to a reader.
fn log_changes(changes: &[Change]) {
    for change in changes.iter().take(MAX_LOGGED_CHANGES) {
        info!("reload: {change}");
    }
    let more = changes.len().saturating_sub(MAX_LOGGED_CHANGES);
    if more > 0 {
        info!("reload: and {more} more changes");
    }
}

const MAX_LOGGED_CHANGES: usize = 50;

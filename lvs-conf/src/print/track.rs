//! Tracked objects and garp groups.

use super::{Milliseconds, Writer, quoted};
use crate::model::{BfdInstance, Config, GarpGroup, ParameterMatch, TrackProcess, VrrpScript};
use crate::settings::{Setting as _, Settings as _};

pub(super) fn write(config: &Config, out: &mut Writer) {
    for group in &config.garp_groups {
        out.block("garp_group", |out| {
            let empty = GarpGroup {
                garp_interval: None,
                gna_interval: None,
                interfaces: Vec::new(),
            };
            group.write(&empty, out);
            out.values(
                "interfaces",
                group.interfaces.iter().map(|name| quoted(name)),
            );
        });
    }
    for file in &config.track_files {
        out.block(format!("track_file {}", quoted(&file.name)), |out| {
            out.line(format!("file {}", quoted(&file.path)));
            weight(i32::from(file.weight), file.reverse, 1, out);
            if let Some(init) = file.init {
                let overwrite = if init.overwrite { " overwrite" } else { "" };
                out.line(format!("init_file {}{overwrite}", init.value));
            }
        });
    }
    for script in &config.scripts {
        out.block(format!("vrrp_script {}", quoted(&script.name)), |out| {
            vrrp_script(script, out);
        });
    }
    for process in &config.track_processes {
        out.block(
            format!("vrrp_track_process {}", quoted(&process.name)),
            |out| {
                track_process(process, out);
            },
        );
    }
    for bfd in &config.bfd_instances {
        out.block(format!("bfd_instance {}", quoted(&bfd.name)), |out| {
            bfd_instance(bfd, out);
        });
    }
}

fn weight(weight: i32, reverse: bool, default: i32, out: &mut Writer) {
    if weight != default || reverse {
        let reverse = if reverse { " reverse" } else { "" };
        out.line(format!("weight {weight}{reverse}"));
    }
}

fn vrrp_script(script: &VrrpScript, out: &mut Writer) {
    let command = crate::model::Script {
        user: None,
        ..script.script.clone()
    };
    out.script("script", &command);
    script.write(&VrrpScript::named(""), out);
    if script.timeout != script.interval {
        script.timeout.write("timeout", out);
    }
    weight(i32::from(script.weight), script.reverse, 0, out);
    script.script.user.write("user", out);
}

fn track_process(process: &TrackProcess, out: &mut Writer) {
    let words: Vec<String> = process.command.iter().map(|word| quoted(word)).collect();
    out.line(format!("process {}", words.join(" ")));
    match process.parameters {
        None => {}
        Some(ParameterMatch::Exact) => out.line("param_match"),
        Some(other) => out.line(format!("param_match {other}")),
    }
    weight(i32::from(process.weight), process.reverse, 0, out);
    if process.quorum > 1 {
        out.line(format!("quorum {}", process.quorum));
    }
    if let Some(most) = process.quorum_max {
        out.line(format!("quorum_max {most}"));
    }
    process.write(&TrackProcess::named(""), out);
}

fn bfd_instance(bfd: &BfdInstance, out: &mut Writer) {
    let default = BfdInstance::named("", bfd.neighbor);
    out.line(format!("neighbor_ip {}", bfd.neighbor));
    if let Some(source) = bfd.source {
        out.line(format!("source_ip {source}"));
    }
    for (name, value, default) in [
        ("min_rx", bfd.min_rx, default.min_rx),
        ("min_tx", bfd.min_tx, default.min_tx),
        ("idle_tx", bfd.idle_tx, default.idle_tx),
    ] {
        if value != default {
            out.line(format!("{name} {}", Milliseconds(value)));
        }
    }
    if bfd.ttl != default.ttl {
        out.line(format!("ttl {}", bfd.ttl));
    }
    bfd.write(&default, out);
    weight(i32::from(bfd.weight), bfd.reverse, 0, out);
    match (bfd.vrrp, bfd.checker) {
        (true, false) => out.line("vrrp"),
        (false, true) => out.line("checker"),
        _ => {}
    }
}

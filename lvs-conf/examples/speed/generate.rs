//! Large configurations, the same for every run.

use std::fmt::Write as _;

/// So many virtual servers with ten real servers each, every one with an HTTP checker; about 3 KiB a virtual server.
pub(crate) fn generate(services: usize) -> String {
    let mut text = String::from("! generated\nglobal_defs {\n    router_id generated\n}\n");
    for service in 0..services {
        let (high, low) = (service / 250, service % 250 + 1);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\nvirtual_server 10.1.{high}.{low} 80 {{
    delay_loop 6
    lb_algo wlc
    lb_kind NAT
    persistence_timeout 600
    protocol TCP
    quorum 3
    hysteresis 1
"
        );
        for server in 0..SERVERS {
            let _ = write!(
                text,
                "
    real_server 10.{}.{high}.{low} 8080 {{
        weight {}
        inhibit_on_failure
        HTTP_GET {{
            url {{
                path /health/{service}
                status_code 200
            }}
            connect_timeout 3
            retry 3
            delay_before_retry 2
        }}
    }}
",
                server + 100,
                server + 1
            );
        }
        text.push_str("}\n");
    }
    text
}

const SERVERS: usize = 10;

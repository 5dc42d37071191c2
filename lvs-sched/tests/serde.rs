//! Configuration types in a readable form.

#![cfg(feature = "serde")]

use lvs_sched::*;

#[test]
fn a_service_is_written_and_read() {
    let key = ServiceKey::Address {
        protocol: Protocol::Tcp,
        vip: [203, 0, 113, 10].into(),
        vport: 80,
    };
    let config = ServiceConfig {
        scheduler: SchedulerKind::MaglevHash,
        flags: SchedulerFlags::PORT,
        ..ServiceConfig::default()
    };
    let server = ServerConfig {
        weight: Weight::new(3).unwrap(),
        ..ServerConfig::default()
    };
    let all = (key, config, server);
    let text = serde_json::to_string(&all).unwrap();
    assert!(text.contains("\"mh\""), "{text}");
    let read: (ServiceKey, ServiceConfig, ServerConfig) = serde_json::from_str(&text).unwrap();
    assert_eq!(read, all);
}

#[test]
fn nonsense_is_refused_and_gaps_take_defaults() {
    assert_eq!(
        serde_json::from_str::<ServerConfig>("{}").unwrap(),
        ServerConfig::default()
    );
    assert!(serde_json::from_str::<Weight>("2147483648").is_err());
    assert!(serde_json::from_str::<SchedulerKind>("\"fastest\"").is_err());
}

#[test]
fn a_director_is_written_and_read() {
    let mut config = DirectorConfig::new([1, 2, 3, 4]);
    config.max_connections = 1000;
    config.timeouts.tcp_fin = std::time::Duration::from_secs(7);
    config.tunables.drop_entry = Defence::Automatic;
    config.tunables.sync.threshold = (5, 60);
    config.local_ports = 5000..=6000;
    let text = serde_json::to_string(&config).unwrap();
    assert!(text.contains("\"automatic\""), "{text}");
    let read: DirectorConfig = serde_json::from_str(&text).unwrap();
    assert_eq!(read, config);
}

#[test]
fn a_director_needs_its_seeds_and_nothing_else() {
    let read: DirectorConfig = serde_json::from_str(r#"{"seeds": [1, 2, 3, 4]}"#).unwrap();
    assert_eq!(read, DirectorConfig::new([1, 2, 3, 4]));
    assert!(serde_json::from_str::<DirectorConfig>("{}").is_err());
    let tunables: Tunables = serde_json::from_str(r#"{"sloppy_tcp": true}"#).unwrap();
    let mut expected = Tunables::default();
    expected.sloppy_tcp = true;
    assert_eq!(tunables, expected);
    let engine: EngineKind = serde_json::from_str("\"sip\"").unwrap();
    assert_eq!(serde_json::to_string(&engine).unwrap(), "\"sip\"");
}

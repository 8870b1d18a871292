use super::*;
use crate::token::Alg;

fn parse(text: &str, pairs: &[(&str, &str)]) -> Result<Config, String> {
    let environment = Environment::from_pairs(pairs.iter().copied());
    Config::parse("stagedoor.toml", text, &environment).map_err(|e| e.to_string())
}

#[test]
fn nothing_set_gives_the_contracts_defaults() {
    let config = parse("", &[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.issuer_for(config.listen).unwrap().as_str(), "http://127.0.0.1:8080");
    assert_eq!(config.database_url.expose(), "sqlite://./.stagedoor/stagedoor.db");
    assert_eq!(config.database_owner_url, config.database_url);
    assert_eq!(config.database_url.sqlite_path().unwrap(), Path::new("./.stagedoor/stagedoor.db"));
    assert_eq!(config.master_key, SecretSource::File("./.stagedoor/master.key".into()));
    assert_eq!(config.signing_alg, Alg::Es256);
    assert_eq!(config.directory, DirectoryConfig::None);
    assert!(config.trusted_proxies.is_empty() && config.metrics_listen.is_none() && config.console.is_none());
    assert!(!config.outbound.allow_http && config.log_max_bytes.is_none());
    assert_eq!((config.actor_retention.num_days(), config.witnesses_required), (365, 0));
    assert_eq!(config.key_max_age.unwrap().num_days(), 60);
    assert!(config.key_beside_database());
}

#[test]
fn the_page_of_settings_has_every_one_of_them() {
    let page = include_str!("../../../docs/settings.md");
    for name in setting_names() {
        for word in
            name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
        {
            assert!(page.contains(&format!("`{word}`")) || page.contains(&format!("`{word} =")), "{name}");
        }
    }
}

#[test]
fn every_table_of_the_contract_is_read() {
    let config = parse(
        r#"
        listen = "0.0.0.0:443"
        issuer = "https://stagedoor.example.com/a"
        database_url = "postgres://app:pw@db/stagedoor"
        database_owner_url = "postgres://owner:pw@db/stagedoor"
        master_key_file = "/run/secrets/master"
        trusted_proxies = ["10.0.0.0/8", "192.168.1.1"]
        metrics_listen = "127.0.0.1:9090"
        signing_alg = "EdDSA"
        log_max_bytes = 10_000_000_000
        actor_retention = "730d"
        key_max_age = "never"
        witnesses_required = 1
        witness_deadline = "10m"
        ca_bundle = "/etc/ca.pem"
        allow_private_hosts = ["IDP.internal.", "10.1.0.0/16"]
        [[issuers]]
        iss = "https://login.example.com/realms/a"
        discovery = true
        audiences = ["stagedoor"]
        clients = ["admin-app"]
        roles_path = "realm_access.roles"
        [[issuers]]
        iss = "https://other.example.com"
        jwks_file = "other.json"
        audiences = ["stagedoor"]
        clients = ["cli"]
        typ = ["application/at+JWT"]
        id_token = true
        [directory]
        kind = "scim"
        url = "https://scim.example.com/v2"
        token = "t0p"
        [policy]
        path = "policy.cedar"
        on_verify = true
        [[gates]]
        name = "default"
        audience = "https://app.example.com"
        scopes = ["read", "write"]
        impersonation = true
        [[witnesses]]
        url = "https://witness.example.com/a"
        vkey = "w1"
        [[witnesses]]
        url = "https://witness.example.org"
        vkey = "w2"
        [console]
        issuer = "https://login.example.com/realms/a"
        client_id = "console"
        client_secret = "hush"
        "#,
        &[],
    )
    .unwrap();
    let [first, second] = &config.issuers[..] else { panic!("two issuers") };
    let address = "https://login.example.com/realms/a/.well-known/openid-configuration";
    assert_eq!(first.keys, KeySource::Discovery(address.to_owned()));
    assert_eq!((first.max_age_seconds, first.id_token), (900, false));
    assert_eq!((&second.typ[..], second.id_token), (&["at+jwt".to_owned()][..], true));
    assert_eq!(config.gates[0].scopes.to_string(), "read write");
    assert_eq!(config.outbound.allow_private_hosts[0], PrivateHost::Name("idp.internal".to_owned()));
    assert_eq!(config.trusted_proxies[1].to_string(), "192.168.1.1/32");
    assert_eq!(config.policy_path.as_deref(), Some(Path::new("policy.cedar")));
    assert!(config.policy_on_verify);
    assert!(!config.key_beside_database());
    assert_eq!(
        (config.actor_retention.num_days(), config.witness_deadline.unwrap().num_seconds()),
        (730, 600)
    );
    assert!(config.key_max_age.is_none());
    assert_eq!(
        (config.witnesses_required, config.witnesses[1].url.as_str()),
        (1, "https://witness.example.org")
    );
    let shown = format!("{config:?}");
    for secret in ["pw@", "t0p", "hush"] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
}

#[test]
fn the_environment_wins_and_reaches_every_nested_key() {
    let file = "listen = \"127.0.0.1:1\"\n[directory]\nkind = \"file\"\npath = \"a.json\"\n[[gates]]\nname = \"a\"\naudience = \"x\"";
    let config = parse(
        file,
        &[
            ("STAGEDOOR_LISTEN", "127.0.0.1:2"),
            ("STAGEDOOR_DIRECTORY__PATH", "b.json"),
            ("STAGEDOOR_GATES__0__SCOPES", "read, write"),
            ("STAGEDOOR_GATES__1__NAME", "b"),
            ("STAGEDOOR_GATES__1__AUDIENCE", "y"),
            ("STAGEDOOR_ALLOW_HTTP", "true"),
            ("STAGEDOOR_ISSUERS__0__ISS", "http://127.0.0.1:9"),
            ("STAGEDOOR_ISSUERS__0__DISCOVERY", "true"),
            ("STAGEDOOR_ISSUERS__0__AUDIENCES", "a"),
            ("STAGEDOOR_ISSUERS__0__CLIENTS", "b"),
            // no settings: the command line's, and what Kubernetes adds for a service of our name
            ("STAGEDOOR_CLIENT_SECRET", "sk_live_x"),
            ("STAGEDOOR_URL", "http://127.0.0.1:2"),
            ("STAGEDOOR_SERVICE_HOST", "10.0.0.1"),
            ("STAGEDOOR_PORT", "tcp://10.0.0.1:8080"),
            ("STAGEDOOR_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ],
    )
    .unwrap();
    assert_eq!(config.listen.port(), 2);
    assert_eq!(config.directory, DirectoryConfig::File { path: "b.json".into() });
    assert_eq!(config.gates[0].scopes.to_string(), "read write");
    assert_eq!(config.gates[1].name, "b");
    let KeySource::Discovery(address) = &config.issuers[0].keys else { panic!("discovery") };
    assert_eq!(address, "http://127.0.0.1:9/.well-known/openid-configuration");
}

#[test]
fn a_secret_comes_from_a_file_and_never_from_both() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("url");
    std::fs::write(&path, "postgres://app:pw@db/x\n").unwrap();
    let path = path.display().to_string();
    let config = parse("", &[("STAGEDOOR_DATABASE_URL_FILE", &path)]).unwrap();
    assert_eq!(config.database_url.expose(), "postgres://app:pw@db/x");
    let both = parse("database_url = \"sqlite://a\"", &[("STAGEDOOR_DATABASE_URL_FILE", &path)]);
    assert_eq!(
        both.unwrap_err(),
        "`database_url` in stagedoor.toml and STAGEDOOR_DATABASE_URL_FILE are both set; keep one of them"
    );
    let both = [("STAGEDOOR_CLIENT_SECRET", "a"), ("STAGEDOOR_CLIENT_SECRET_FILE", path.as_str())];
    assert!(matches!(Environment::from_pairs(both).client_secret(), Err(ConfigError::Both { .. })));
}

#[test]
fn what_is_wrong_is_said_in_one_sentence_with_what_to_do() {
    let issuer = |rest: &str| {
        format!("[[issuers]]\niss = \"https://a.example\"\naudiences = [\"x\"]\nclients = [\"c\"]\n{rest}")
    };
    let table: Vec<(String, &str)> = vec![
        ("isuer = 1".into(), "`isuer` in stagedoor.toml is not a setting; did you mean `issuer`?"),
        ("LISTEN = \"\"".into(), "`LISTEN` in stagedoor.toml is not a setting; did you mean `listen`?"),
        ("[directory]\nkidn = 1".into(), "did you mean `directory.kind`?"),
        ("master_key_fil = 1".into(), "did you mean `master_key_file`?"),
        ("a = [".into(), "stagedoor.toml line 1 is not TOML"),
        ("\n\nlisten = 8080 8080".into(), "stagedoor.toml line 3 is not TOML"),
        ("listen = \"localhost\"".into(), "is not an IP address and a port; write it as 127.0.0.1:8080"),
        ("listen = 8080".into(), "must be a text; write it in quotes"),
        ("listen = \"\"".into(), "is empty"),
        ("allow_http = \"yes\"".into(), "must be true or false"),
        ("listen = \"0.0.0.0:80\"".into(), "`issuer` is missing; others reach this listener"),
        ("listen = \"0.0.0.0:80\"\nissuer = \"http://a.example\"".into(), "must be https"),
        ("issuer = \"https://a.example/\"".into(), "must not end with a slash"),
        ("issuer = \"https://a.example?x\"".into(), "no query"),
        ("issuer = \"https://a.example#x\"".into(), "no fragment"),
        ("issuer = \"https://u:p@a.example\"".into(), "no user name"),
        ("issuer = \"https://A.example:443\"".into(), "write https://a.example"),
        ("issuer = \"ftp://a.example\"".into(), "must begin with https://"),
        ("issuer = \"a.example\"".into(), "is not an address"),
        ("database_url = \"mysql://x\"".into(), "must begin with sqlite:// or postgres://"),
        ("database_url = \"sqlite::memory:\"".into(), "names no file"),
        ("database_owner_url = \"postgres://x\"".into(), "SQLite knows no roles"),
        ("log_max_bytes = 5_000_000".into(), "is for PostgreSQL"),
        ("database_url = \"postgres://x\"\nlog_max_bytes = -1".into(), "must be a whole number"),
        ("signing_alg = \"HS256\"".into(), "is not one of ES256, RS256, EdDSA"),
        ("trusted_proxies = [\"proxy\"]".into(), "holds \"proxy\", which is no address or network"),
        ("trusted_proxies = \"10.0.0.1\"".into(), "must be a list of texts"),
        ("directory = \"none\"".into(), "is a table; write [directory]"),
        ("[issuers]\niss = \"a\"".into(), "is a list of tables; write [[issuers]]"),
        ("[directory]\nkind = \"ldap\"".into(), "is not one of none, file, scim"),
        ("[directory]\nkind = \"file\"".into(), "`directory.path` is missing"),
        ("[directory]\nkind = \"file\"\npath = \"a\"\nurl = \"https://x\"".into(), "does not belong to kind"),
        ("[directory]\nkind = \"scim\"\nurl = \"http://scim\"".into(), "must be https"),
        (issuer(""), "`issuers[0].discovery` is missing; write one of"),
        (issuer("jwks_url = \"https://x\"\njwks_file = \"y\""), "are both set; keep one"),
        (issuer("discovery = true\nalgs = [\"HS256\"]"), "holds \"HS256\", which is not accepted"),
        (issuer("jwks_url = \"http://x\""), "must be https"),
        ("[[issuers]]\njwks_file = \"a\"".into(), "`issuers[0].iss` is missing"),
        ("[[issuers]]\niss = \"a\"\njwks_file = \"a\"".into(), "`issuers[0].audiences` is missing"),
        (
            "[[issuers]]\niss = \"a\"\naudiences = [\"x\"]\njwks_file = \"a\"".into(),
            "`issuers[0].clients` is missing",
        ),
        (issuer("jwks_file = \"a\"\n[console]\nissuer = \"https://b\""), "is not one of [[issuers]]"),
        ("actor_retention = \"1 year\"".into(), "is no length of time; write a number and a unit"),
        ("key_max_age = \"10m\"".into(), "must be two hours or more, as 60d; or never"),
        ("[[witnesses]]\nvkey = \"a\"".into(), "`witnesses[0].url` is missing"),
        ("[[witnesses]]\nurl = \"http://w.example\"\nvkey = \"a\"".into(), "must be https"),
        ("witnesses_required = 2".into(), "is more than the 0 that are configured"),
        ("witness_deadline = \"10m\"".into(), "is for a log with witnesses, and none are configured"),
        ("[[gates]]\nname = \"A B\"".into(), "may hold a-z, 0-9, _ and - only"),
        ("[[gates]]\nname = \"a\"".into(), "`gates[0].audience` is missing"),
        (
            "issuer = \"https://a.example\"\n".to_owned() + &issuer("jwks_file = \"a\""),
            "is this service's own issuer",
        ),
    ];
    for (text, expected) in table {
        let error = parse(&text, &[]).expect_err(&text);
        assert!(error.contains(expected), "{text}\n  gave: {error}\n  not:  {expected}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn wrong_variables_are_named_as_variables() {
    for (name, value, expected) in [
        ("STAGEDOOR_ISUER", "x", "STAGEDOOR_ISUER is not a setting; did you mean STAGEDOOR_ISSUER?"),
        ("STAGEDOOR_DIRECTORY", "x", "did you mean STAGEDOOR_DIRECTORY__…?"),
        ("STAGEDOOR_DIRECTORY__KIN", "x", "did you mean STAGEDOOR_DIRECTORY__KIND?"),
        ("STAGEDOOR_ISSUERS__0__IS", "x", "did you mean STAGEDOOR_ISSUERS__0__ISS?"),
        ("STAGEDOOR_ISSUERS__1__ISS", "x", "numbered from 0 without a gap"),
        ("STAGEDOOR_LISTEN__PORT", "1", "did you mean STAGEDOOR_LISTEN?"),
        ("STAGEDOOR_ALLOW_HTTP", "1", "STAGEDOOR_ALLOW_HTTP must be true or false"),
        ("STAGEDOOR_LISTEN", "nine", "STAGEDOOR_LISTEN is not an IP address"),
        ("STAGEDOOR_MASTER_KEYFILE", "x", "did you mean STAGEDOOR_MASTER_KEY_FILE?"),
    ] {
        let error = parse("", &[(name, value)]).expect_err(name);
        assert!(error.contains(expected), "{name}\n  gave: {error}\n  not:  {expected}");
    }
}

#[test]
fn tables_are_numbered_as_numbers_are() {
    let pairs: Vec<(String, String)> = (0..12)
        .flat_map(|n| {
            let of = |key: &str| format!("STAGEDOOR_GATES__{n}__{key}");
            [(of("NAME"), format!("gate-{n}")), (of("AUDIENCE"), format!("https://{n}.example"))]
        })
        .collect();
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let config = parse("", &pairs).unwrap();
    let names: Vec<&str> = config.gates.iter().map(|gate| gate.name.as_str()).collect();
    assert_eq!((names.len(), names[2], names[10], names[11]), (12, "gate-2", "gate-10", "gate-11"));
}

#[test]
fn our_issuer_under_a_free_port_is_nobody_elses_either() {
    let text = "listen = \"127.0.0.1:0\"\n[[issuers]]\niss = \"http://127.0.0.1:5000\"\njwks_file = \"a\"\naudiences = [\"x\"]\nclients = [\"c\"]";
    let config = parse(text, &[]).unwrap();
    assert!(config.issuer_for("127.0.0.1:5000".parse().unwrap()).is_err());
    assert_eq!(config.issuer_for("[::1]:80".parse().unwrap()).unwrap().as_str(), "http://[::1]:80");
}

#[test]
fn a_database_path_with_odd_characters_survives_the_address() {
    let config = parse("data_dir = \"a%20b?c#d\"", &[]).unwrap();
    assert_eq!(config.database_url.sqlite_path().unwrap(), Path::new("a%20b?c#d/stagedoor.db"));
}

#[test]
fn the_environment_shows_names_and_never_values() {
    let environment = Environment::from_pairs([("STAGEDOOR_MASTER_KEY", "hush"), ("HOME", "/root")]);
    assert_eq!(format!("{environment:?}"), "{\"MASTER_KEY\"}");
    assert_eq!(format!("{:?}", Secret::new("hush".into())), "[redacted]");
}

const WEBHOOK: &str = "[[webhooks]]\nname = \"a\"\nurl = \"https://hooks.example.com/x\"\n";

#[test]
fn a_webhook_is_told_of_everything_and_of_ids_unless_it_says_otherwise() {
    let secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let config = parse(&format!("{WEBHOOK}secret = \"{secret}\""), &[]).unwrap();
    let [hook] = &config.webhooks[..] else { panic!("one") };
    assert_eq!((&hook.events[..], hook.personal), (&WebhookEvent::ALL[..], WebhookPersonal::Ids));
    assert_eq!(webhook_key(&hook.secret).unwrap()[..4], [0, 1, 2, 3]);
    assert!(!format!("{config:?}").contains("AAECAw"));
    let narrow = "events = [\"grant.ended\"]\npersonal = \"none\"";
    let config = parse(&format!("{WEBHOOK}secret = \"{secret}\"\n{narrow}"), &[]).unwrap();
    assert_eq!(config.webhooks[0].events, [WebhookEvent::GrantEnded]);
}

#[test]
fn a_webhook_that_could_not_work_is_refused_with_what_to_write() {
    let good = "secret = \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\n";
    let table = [
        (WEBHOOK.to_owned(), "secret_file"),
        (format!("{WEBHOOK}secret = \"whsec_c2hvcnQ=\""), "24 to 64 bytes"),
        (format!("{WEBHOOK}secret = \"whsec_***\""), "openssl rand"),
        (format!("{WEBHOOK}{good}events = [\"grant.begun\"]"), "grant.started, grant.ended"),
        (format!("{WEBHOOK}{good}events = []"), "is empty"),
        (format!("{WEBHOOK}{good}personal = \"some\""), "none, ids, all"),
        (format!("{WEBHOOK}{good}{WEBHOOK}{good}"), "twice"),
        (format!("{WEBHOOK}{good}").replace("https", "http"), "must be https"),
        (format!("{WEBHOOK}{good}").replace("\"a\"", "\"a b\""), "a-z"),
        ("[[webhooks]]\nurl = \"https://x\"".to_owned(), "name"),
        (format!("{WEBHOOK}{good}retries = 3"), "is not a setting"),
    ];
    for (text, want) in table {
        let error = parse(&text, &[]).unwrap_err();
        assert!(error.contains(want), "{text}: {error}");
        assert!(!error.contains("AAECAw") && !error.contains("c2hvcnQ"), "{error}");
    }
}

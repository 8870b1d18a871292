//! The same questions to every proxy: who gets through, and what the service behind it then believes.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use stagedoor::server::cli::conformance::forge::{Subject, b64, text, with};
use stagedoor::token::Alg;

use crate::echo::{Echo, start as start_echo};
use crate::processes::{Running, free_port};
use crate::raw::{Answer, ask};
use crate::recipes::Runtime;
use crate::stagedoor::{Stagedoor, names, until_listening};

const IDENTITY: [&str; 5] =
    ["x-stagedoor-user", "x-stagedoor-actor", "x-stagedoor-scopes", "x-stagedoor-grant", "impersonated"];

/// A proxy with its configuration from `docs/proxies`, before an echo.
struct Proxy {
    name: &'static str,
    port: u16,
    echo: Echo,
    stagedoor: Stagedoor,
    _running: Running,
}

impl Proxy {
    /// None, with a line `SKIP …`, where the program is not on the machine.
    fn start(
        name: &'static str,
        config: &str,
        command: impl Fn(&Path) -> Command,
        prepare: impl Fn(&str, &Path) -> String,
    ) -> Option<Self> {
        let program = command(Path::new(".")).get_program().to_owned();
        if Command::new(program).arg("--version").output().is_err() {
            println!("SKIP behind_{name}: {name} is not on the machine (apt-get install {name})");
            return None;
        }
        let (echo, stagedoor, port) = (start_echo(), Stagedoor::start(Alg::Es256), free_port());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/proxies").join(config);
        let configuration = std::fs::read_to_string(source)
            .expect("the configuration")
            .replace(":8000", &format!(":{port}"))
            .replace(":8080", &format!(":{}", stagedoor.port))
            .replace(":3000", &format!(":{}", echo.port))
            .replace("port_value: 8000", &format!("port_value: {port}"))
            .replace("port_value: 8080", &format!("port_value: {}", stagedoor.port))
            .replace("port_value: 3000", &format!("port_value: {}", echo.port))
            .replace("STAGEDOOR_HEADER", &b64(text(&stagedoor.subject.header())));
        let place = stagedoor.path("proxy");
        std::fs::create_dir_all(&place).expect("a directory");
        std::fs::write(place.join(config), prepare(&configuration, &place))
            .expect("the configuration is written");
        let running = Running::start(command(&place).current_dir(&place).env("HOME", &place));
        until_listening(port);
        Some(Self { name, port, echo, stagedoor, _running: running })
    }

    fn subject(&self) -> &Subject {
        &self.stagedoor.subject
    }

    fn actor_token(&self) -> String {
        self.subject().sign(&self.subject().header(), &self.subject().actor_claims())
    }

    fn ordinary_token(&self) -> String {
        self.ordinary_token_of("user_42")
    }

    fn ordinary_token_of(&self, user: &str) -> String {
        let claims = self.subject().ordinary_claims().expect("a home issuer");
        self.subject().sign(&self.subject().header(), &with(claims, "sub", user))
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        ask(self.port, "GET", path, headers, "")
    }

    fn bearer(&self, path: &str, token: &str) -> Answer {
        self.get(path, &[("Authorization", &format!("Bearer {token}"))])
    }

    /// What reached the service; a request that did not get there fails the test.
    fn reached(&self, answer: &Answer) -> Value {
        assert_eq!(answer.status, 200, "{}: {answer:?}", self.name);
        serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{}: {answer:?}", self.name))
    }

    /// Every identity header that reached the service, sorted; each must be there once.
    fn identity(&self, answer: &Answer) -> Value {
        let seen = self.reached(answer);
        let mut identity = serde_json::Map::new();
        for header in seen["headers"].as_array().expect("headers") {
            let (name, value) = (header[0].as_str().unwrap_or_default(), header[1].clone());
            let read_as = name.replace('_', "-");
            if IDENTITY.contains(&read_as.as_str()) {
                assert!(identity.insert(name.to_owned(), value).is_none(), "{}: {name} twice", self.name);
            }
        }
        Value::Object(identity)
    }

    /// Asks what must not reach the service.
    fn refused(&self, what: &str, statuses: &[u16], answer: impl FnOnce() -> Answer) {
        let before = self.echo.requests.load(Ordering::SeqCst);
        let answer = answer();
        assert!(statuses.contains(&answer.status), "{}: {what}: {answer:?}", self.name);
        assert_eq!(
            self.echo.requests.load(Ordering::SeqCst),
            before,
            "{}: {what} reached the service",
            self.name
        );
    }

    fn keeps_who_it_is(&self) {
        let actor = json!({
            "x-stagedoor-user": "user_42", "x-stagedoor-actor": "admin_7", "x-stagedoor-scopes": "read",
            "x-stagedoor-grant": "act_conformance", "impersonated": "?1",
        });
        assert_eq!(self.identity(&self.bearer("/orders", &self.actor_token())), actor, "{}", self.name);
        let himself = json!({
            "x-stagedoor-user": "user_42", "x-stagedoor-actor": "-", "x-stagedoor-scopes": "read",
            "x-stagedoor-grant": "-", "impersonated": "?0",
        });
        for path in ["/", "/me", "/orders", "/orders/7?page=2&scope=admin"] {
            let answer = self.bearer(path, &self.ordinary_token());
            assert_eq!(self.identity(&answer), himself, "{} {path}", self.name);
            assert_eq!(
                self.reached(&answer)["uri"].as_str().map(|uri| uri.ends_with(path)),
                Some(true),
                "{path}"
            );
        }
        let odd = self.identity(&self.bearer("/me", &self.ordinary_token_of("Jürgen, \"x\" 100%")));
        assert_eq!(odd["x-stagedoor-user"], "J%C3%BCrgen%2C%20%22x%22%20100%25", "{}", self.name);
        let authorization = format!("Bearer {}", self.ordinary_token());
        let posted = ask(self.port, "POST", "/me", &[("Authorization", &authorization)], "a body");
        let posted = self.reached(&posted);
        assert_eq!((&posted["method"], &posted["body"]), (&json!("POST"), &json!("a body")), "{}", self.name);
    }

    fn refuses_who_may_not(&self) {
        let (actor, ordinary) = (self.actor_token(), self.ordinary_token());
        self.refused("no token", &[401], || {
            let answer = self.get("/me", &[]);
            assert!(answer.head.contains("www-authenticate: bearer"), "{}: {answer:?}", self.name);
            answer
        });
        self.refused("an impersonator at `default`", &[403], || self.bearer("/me", &actor));
        self.refused("a bad token", &[401], || self.bearer("/me", &format!("{ordinary}x")));
        let elsewhere = self.subject().claims_with("aud", "https://elsewhere.example");
        self.refused("another audience", &[401], || self.bearer("/orders", &elsewhere));
        let expired = self.subject().claims_with("exp", self.subject().now.timestamp() - 1);
        self.refused("an expired token", &[401], || self.bearer("/orders", &expired));
        // The path chooses the gate: no spelling of another path may choose this one.
        for path in [
            "/orders/../me",
            "/orders/%2e%2e/me",
            "/orders/..%2fme",
            "/orders/.%2E/me",
            "//orders/../me",
            "/ordersx",
        ] {
            self.refused(path, &[400, 401, 403, 404], || self.bearer(path, &actor));
        }
        // Spellings that choose this gate, and are another route to some service behind it.
        for path in [
            "//orders/me",
            "/orders//me",
            "/orders/..\\me",
            "/orders/.\\../me",
            "/orders/..%5cme",
            "/me/../orders",
            "/orders/..;/me",
            "/orders;/../me",
            "/orders/..%3b/me",
            "/orders/./7",
        ] {
            let answer = self.bearer(path, &actor);
            if answer.status == 200 {
                // some hand on the path that they compared; then there is nothing left to read otherwise
                let reached = self.reached(&answer)["uri"].as_str().unwrap_or_default().to_owned();
                let clean = reached.starts_with("/orders")
                    && !["//", "/.", ";", "\\", "%"].iter().any(|odd| reached.contains(odd));
                assert!(clean, "{}: {path} reached the service as {reached}", self.name);
            } else {
                self.refused(path, &[400, 401, 403, 404], || self.bearer(path, &actor));
            }
        }
    }

    fn believes_nothing_the_caller_says(&self) {
        let spoofed = [
            ("X-Stagedoor-User", "admin"),
            ("x-stagedoor-user", "root"),
            ("X-Stagedoor-Actor", "nobody"),
            ("X-STAGEDOOR-SCOPES", "admin"),
            ("X-Stagedoor-Grant", "act_x"),
            ("Impersonated", "?0"),
            ("X_Stagedoor_User", "admin"),
            ("X-Stagedoor_User", "admin"),
            ("x_stagedoor_actor", "nobody"),
        ];
        self.refused("identity headers without a token", &[401], || self.get("/me", &spoofed));
        let authorization = format!("Bearer {}", self.actor_token());
        let headers: Vec<(&str, &str)> =
            spoofed.into_iter().chain([("Authorization", authorization.as_str())]).collect();
        let identity = self.identity(&self.get("/orders", &headers));
        assert_eq!(identity["x-stagedoor-user"], "user_42", "{}: {identity}", self.name);
        assert_eq!(identity["x-stagedoor-actor"], "admin_7", "{}: {identity}", self.name);
        assert_eq!(identity["impersonated"], "?1", "{}: {identity}", self.name);
        assert_eq!(identity.as_object().map(serde_json::Map::len), Some(5), "{}: {identity}", self.name);
        // Named in `Connection`, they would be taken away again between proxy and service (RFC 9110 §7.6.1).
        let connection = format!("{}, {}", IDENTITY[1].to_uppercase(), IDENTITY.join(", "));
        let answer = self.get("/orders", &[("Authorization", &authorization), ("Connection", &connection)]);
        if answer.status != 400 {
            assert_eq!(self.identity(&answer), identity, "{}", self.name);
        }
    }

    fn is_not_confused_by_two_headers(&self) {
        let ordinary = format!("Bearer {}", self.ordinary_token());
        let other = format!("Bearer {}", self.ordinary_token_of("admin"));
        for (first, second) in
            [(&ordinary, &other), (&ordinary, &"Bearer x".to_owned()), (&"Basic eDp5".to_owned(), &ordinary)]
        {
            self.refused("a doubled Authorization", &[400, 401], || {
                self.get("/me", &[("Authorization", first), ("authorization", second)])
            });
        }
    }

    fn survives_huge_headers(&self) {
        let ordinary = format!("Bearer {}", self.ordinary_token());
        let authorization = ("Authorization", ordinary.as_str());
        let cookie = format!("a={}", "c".repeat(6_000));
        self.identity(&self.get("/me", &[authorization, ("Cookie", &cookie)]));
        for bytes in [64_000, 2_000_000] {
            let huge = "h".repeat(bytes);
            let before = self.echo.requests.load(Ordering::SeqCst);
            let answer = self.get("/me", &[("X-Huge", &huge)]);
            assert_ne!(answer.status, 200, "{}: a huge header and no token", self.name);
            let token = format!("Bearer {huge}");
            assert_ne!(
                self.get("/me", &[("Authorization", &token)]).status,
                200,
                "{}: a huge token",
                self.name
            );
            assert_eq!(
                self.echo.requests.load(Ordering::SeqCst),
                before,
                "{}: reached the service",
                self.name
            );
        }
        let names: Vec<String> = (0..300).map(|n| format!("X-Many-{n}")).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
        self.refused("300 headers and no token", &[0, 400, 401, 431, 500], || self.get("/me", &many));
        self.identity(&self.bearer("/me", &self.ordinary_token()));
    }

    /// The whole hostile set through the proxy: nothing gets in, nothing breaks it.
    async fn keeps_the_table(&self) {
        for (route, impersonators) in [("me", "403"), ("orders", "200")] {
            let target = format!("http://127.0.0.1:{}/{route}", self.port);
            let (_, report) = self
                .stagedoor
                .conformance(&target, &["--strict", "--allow-impersonation", impersonators])
                .await;
            for verdict in ["wrongly_accepted", "wrongly_refused", "broke"] {
                let wrong = names(&report, verdict, None);
                assert!(wrong.is_empty(), "{} /{route} {verdict}: {wrong:#?}", self.name);
            }
        }
    }

    async fn asks_stagedoor_everything(mut self) {
        self.keeps_who_it_is();
        self.refuses_who_may_not();
        self.believes_nothing_the_caller_says();
        self.is_not_confused_by_two_headers();
        self.survives_huge_headers();
        self.keeps_the_table().await;
        self.stagedoor.stop();
        let token = self.ordinary_token();
        self.refused("a request while Stagedoor is away", &[500, 502, 503, 504], || {
            self.bearer("/me", &token)
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_nginx() {
    let command = |place: &Path| {
        let mut command = Command::new("nginx");
        command
            .arg("-e")
            .arg(place.join("error.log"))
            .arg("-p")
            .arg(place)
            .arg("-c")
            .arg(place.join("nginx.conf"));
        command
    };
    // The file is one for `conf.d`; around it stands what the distribution's nginx.conf gives, in a place of ours.
    let prepare = |text: &str, place: &Path| {
        let place = place.display();
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {place}/{kind};\n"))
            .concat();
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        format!(
            "{user} daemon off; master_process off; pid {place}/pid; events {{}} http {{ access_log off; {temp} {text} }}"
        )
    };
    if let Some(proxy) = Proxy::start("nginx", "nginx.conf", command, prepare) {
        proxy.asks_stagedoor_everything().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_caddy() {
    let command = |place: &Path| {
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(place.join("Caddyfile"));
        command
    };
    // No administration, no certificates: nothing listens but the proxy.
    let prepare = |text: &str, _: &Path| format!("{{\n\tadmin off\n\tauto_https off\n}}\n{text}");
    if let Some(proxy) = Proxy::start("caddy", "Caddyfile", command, prepare) {
        proxy.asks_stagedoor_everything().await;
    }
}

fn haproxy(config: &'static str) -> impl Fn(&Path) -> Command {
    move |place| {
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(place.join(config));
        command
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_haproxy() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/proxies/haproxy.lua");
    let prepare =
        |text: &str, _: &Path| text.replace("/etc/haproxy/haproxy.lua", &script.display().to_string());
    if let Some(proxy) = Proxy::start("haproxy", "haproxy.cfg", haproxy("haproxy.cfg"), prepare) {
        proxy.asks_stagedoor_everything().await;
    }
}

/// Envoy from `PyPI`, where Debian has none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_envoy() {
    if !Runtime::Python.is_here("behind_envoy") {
        return;
    }
    let command = |place: &Path| {
        let mut command = Runtime::Python.tool("envoy");
        command.args(["--concurrency", "1", "--base-id", &free_port().to_string(), "-c"]);
        command.arg(place.join("envoy.yaml"));
        command
    };
    let prepare = |text: &str, _: &Path| text.to_owned();
    if let Some(proxy) = Proxy::start("envoy", "envoy.yaml", command, prepare) {
        proxy.asks_stagedoor_everything().await;
    }
}

/// Traefik from `PyPI`, where Debian has none. What starts it stands in its file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_traefik() {
    if !Runtime::Python.is_here("behind_traefik") {
        return;
    }
    let command = |place: &Path| {
        let mut command = Runtime::Python.tool("traefik");
        let file = std::fs::read_to_string(place.join("traefik-dynamic.yaml")).unwrap_or_default();
        let line = file.lines().find_map(|line| line.strip_prefix("#   traefik "));
        command.args(line.iter().flat_map(|line| line.split(' ')));
        command
    };
    let prepare = |text: &str, _: &Path| text.to_owned();
    if let Some(proxy) = Proxy::start("traefik", "traefik-dynamic.yaml", command, prepare) {
        // it listens before it has read its routes
        for _ in 0..500 {
            if proxy.get("/me", &[]).status != 404 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        proxy.asks_stagedoor_everything().await;
    }
}

/// HAProxy's own `jwt_verify`: a door for actor tokens alone, without asking Stagedoor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_reads_actor_tokens_by_itself() {
    let prepare = |text: &str, place: &Path| {
        let key = place.parent().expect("a directory above").join("service.pem");
        text.replace("/etc/haproxy/stagedoor.pem", &key.display().to_string())
    };
    let Some(mut proxy) = Proxy::start("haproxy", "haproxy-jwt.cfg", haproxy("haproxy-jwt.cfg"), prepare)
    else {
        return;
    };
    proxy.stagedoor.stop();
    let actor = json!({
        "x-stagedoor-user": "user_42", "x-stagedoor-actor": "admin_7", "x-stagedoor-scopes": "read",
        "x-stagedoor-grant": "act_conformance", "impersonated": "?1",
    });
    assert_eq!(proxy.identity(&proxy.bearer("/orders", &proxy.actor_token())), actor);
    proxy.believes_nothing_the_caller_says();
    proxy.is_not_confused_by_two_headers();
    proxy.refused("an ordinary token", &[401], || proxy.bearer("/orders", &proxy.ordinary_token()));
    let target = format!("http://127.0.0.1:{}/orders", proxy.port);
    let (_, report) = proxy.stagedoor.conformance(&target, &[]).await;
    // It looks at no type of a name and not at the last brace: only the issuer itself could get these wrong.
    let blind = ["\"claim-sub-number", "\"claim-sub-true", "\"act-sub-number", "\"claim-payload-cut"];
    let mut accepted = names(&report, "wrongly_accepted", Some("must"));
    accepted.retain(|name| !blind.iter().any(|known| name.starts_with(known)));
    assert!(accepted.is_empty(), "{accepted:#?}");
    assert!(names(&report, "broke", None).is_empty());
}

//! A client for tests that holds every reply to `openapi.yaml`: status, headers, media type, body.
//!
//! A reply the contract does not describe fails the test that caused it, wherever it occurs.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};

/// The contract as it is served.
pub static CONTRACT: LazyLock<Contract> = LazyLock::new(|| {
    let text = include_str!("../../openapi.yaml");
    Contract {
        doc: serde_saphyr::from_str(text).expect("openapi.yaml is YAML"),
        validators: Mutex::default(),
    }
});

/// Headers that may stand in an answer only where the contract says so.
const ONLY_WHERE_DOCUMENTED: &[&str] = &[
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "location",
    "retry-after",
    "set-cookie",
    "www-authenticate",
];

/// The contract file, read.
pub struct Contract {
    doc: Value,
    validators: Mutex<HashMap<String, Arc<jsonschema::Validator>>>,
}

/// One operation of the contract.
#[derive(Debug, Clone)]
pub struct Operation<'c> {
    /// Its method.
    pub method: Method,
    /// Its path, parameters in braces.
    pub path: &'c str,
    /// What the contract says of it.
    pub spec: &'c Map<String, Value>,
}

impl Operation<'_> {
    /// How a caller proves himself, by the name of the scheme; `None` where nobody has to.
    pub fn credential(&self) -> Option<&str> {
        let security = self.spec["security"].as_array().expect("every operation states its security");
        security.first()?.as_object()?.keys().next().map(String::as_str)
    }

    /// The scopes a client needs, where it calls with its secret.
    pub fn scopes(&self) -> Option<Vec<&str>> {
        let required = self.spec["security"].get(0)?.get("clientSecret")?.as_array()?;
        Some(required.iter().map(|s| s.as_str().expect("a scope")).collect())
    }

    /// The name of the schema of its body.
    pub fn request_component(&self) -> Option<&str> {
        let media = self.spec.get("requestBody")?["content"].as_object()?.values().next()?;
        media["schema"]["$ref"].as_str()?.rsplit('/').next()
    }

    /// Examples of a body that is accepted.
    pub fn request_examples(&self) -> Vec<Value> {
        let content = self.spec.get("requestBody").and_then(|body| body["content"].as_object());
        let media = content.into_iter().flat_map(Map::values);
        let examples = media.filter_map(|m| m["examples"].as_object());
        examples.flat_map(Map::values).map(|example| example["value"].clone()).collect()
    }
}

impl Contract {
    /// Every operation.
    pub fn operations(&self) -> Vec<Operation<'_>> {
        let mut out = Vec::new();
        for (path, item) in self.doc["paths"].as_object().expect("paths") {
            for (method, spec) in item.as_object().expect("a path item") {
                let Ok(method) = method.to_ascii_uppercase().parse() else { continue };
                if let Some(spec) = spec.as_object().filter(|s| s.contains_key("responses")) {
                    out.push(Operation { method, path, spec });
                }
            }
        }
        out
    }

    /// Every public error code.
    pub fn error_codes(&self) -> Vec<&str> {
        let codes = self.doc["components"]["schemas"]["ErrorCode"]["enum"].as_array().expect("an enum");
        codes.iter().map(|c| c.as_str().expect("a code")).collect()
    }

    /// The members that a component's schema knows.
    pub fn members(&self, component: &str) -> Vec<&str> {
        let members =
            self.doc["components"]["schemas"][component]["properties"].as_object().expect("properties");
        members.keys().map(String::as_str).collect()
    }

    /// What is wrong with `value` as a `component`, if anything.
    pub fn check_component(&self, component: &str, value: &Value) -> Result<(), String> {
        self.check(&format!("/components/schemas/{component}"), value)
    }

    /// The operation for a request, and the methods its path takes otherwise.
    fn find(&self, method: &Method, path: &str) -> (Option<Operation<'_>>, Vec<String>) {
        let path = path.split('?').next().unwrap_or(path);
        let mut candidates: Vec<_> =
            self.operations().into_iter().filter(|o| self.fits(o.path, path)).collect();
        // Fixed segments win over parameters.
        let most_fixed = candidates.iter().map(|o| o.path.matches('{').count()).min();
        candidates.retain(|o| Some(o.path.matches('{').count()) == most_fixed);
        let methods = candidates.iter().map(|o| o.method.to_string()).collect();
        (candidates.into_iter().find(|o| o.method == *method), methods)
    }

    /// Whether `path` fits a template; some take further segments after the last one.
    fn fits(&self, template: &str, path: &str) -> bool {
        let takes_rest = self.doc["paths"][template]["x-takes-rest"] == json!(true);
        let (a, b): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        let as_long = a.len() == b.len() || (takes_rest && a.len() < b.len());
        as_long
            && a.iter().zip(&b).all(|(t, p)| t == p || (t.starts_with('{') && (takes_rest || !p.is_empty())))
    }

    /// Follows a `$ref` within the document.
    fn resolve<'c>(&'c self, value: &'c Value) -> &'c Value {
        match value.get("$ref").and_then(Value::as_str) {
            Some(target) => {
                self.doc.pointer(target.trim_start_matches('#')).expect("a reference into the document")
            }
            None => value,
        }
    }

    /// Validates by the schema at `pointer` (JSON Schema 2020-12).
    fn check(&self, pointer: &str, value: &Value) -> Result<(), String> {
        let validator = {
            let mut known = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
            let built = known.entry(pointer.to_owned()).or_insert_with(|| {
                let schema = json!({ "$ref": format!("#{pointer}"), "components": self.doc["components"], "paths": self.doc["paths"] });
                let options = jsonschema::options().with_draft(jsonschema::Draft::Draft202012);
                Arc::new(options.build(&schema).unwrap_or_else(|e| panic!("{pointer} is no schema: {e}")))
            });
            Arc::clone(built)
        };
        let errors: Vec<String> =
            validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
    }

    /// Everything that is wrong with `reply` as an answer to `method path`.
    pub fn faults(&self, method: &Method, path: &str, accept: Option<&str>, reply: &Reply) -> Vec<String> {
        // `dev` refuses foreign names before it looks at the path.
        if reply.status == StatusCode::FORBIDDEN && reply.code() == Some("host_not_allowed") {
            return self.problem_faults(reply);
        }
        let (mut operation, methods) = self.find(method, path);
        if operation.is_none() && *method == Method::HEAD {
            // what GET answers, without its body
            operation = self.find(&Method::GET, path).0;
        }
        let Some(operation) = operation else {
            return self.faults_off_contract(method, path, &methods, reply);
        };
        let status = reply.status.as_str();
        let Some(response) = operation.spec["responses"].get(status) else {
            return vec![format!("status {status} is not documented")];
        };
        let response = self.resolve(response);
        let mut faults = self.header_faults(response.get("headers"), reply);
        if *method == Method::HEAD {
            return faults;
        }
        faults.extend(self.body_faults(&operation, status, response, reply));
        let is_problem = response["content"]["application/json"]["schema"]["$ref"]
            == json!("#/components/schemas/Problem");
        if is_problem {
            faults.extend(self.problem_faults(reply));
            let asked = accept.is_some_and(|a| {
                a.contains("application/problem+json") && !a.contains("application/problem+json;q=0")
            });
            if asked != (reply.header("content-type") == Some("application/problem+json")) {
                faults.push("an error is problem+json exactly when asked for".into());
            }
        }
        faults
    }

    /// A method or path that the contract does not know is a 405 with `Allow`, or a 404.
    fn faults_off_contract(
        &self,
        method: &Method,
        path: &str,
        methods: &[String],
        reply: &Reply,
    ) -> Vec<String> {
        if *method == Method::OPTIONS && reply.status == StatusCode::NO_CONTENT {
            return Vec::new();
        }
        let mut faults = match *method {
            Method::HEAD => Vec::new(),
            // OAuth's clients read OAuth's errors
            _ if path.starts_with("/oauth/") && !methods.is_empty() => {
                let wrong = reply.json()["error"] != json!("invalid_request");
                wrong.then(|| "no error of OAuth's".to_owned()).into_iter().collect()
            }
            _ => self.problem_faults(reply),
        };
        if methods.is_empty() {
            if reply.status != StatusCode::NOT_FOUND {
                faults.push(format!("{} for a path that is not there", reply.status));
            }
        } else {
            let mut allow: Vec<&str> = reply.header("allow").unwrap_or("").split(", ").collect();
            allow.sort_unstable();
            let mut expected: Vec<&str> = methods.iter().map(String::as_str).collect();
            if let Some(get) = self.find(&Method::GET, path).0 {
                // what the edge answers by itself: GET's head, unless it has no end, and a preflight of what is public
                let ok = self.resolve(&get.spec["responses"]["200"]);
                let endless = ok["content"].get("text/event-stream").is_some();
                expected.extend((!endless).then_some("HEAD"));
                expected.extend(ok["headers"].get("Access-Control-Allow-Origin").map(|_| "OPTIONS"));
            }
            expected.sort_unstable();
            if reply.status != StatusCode::METHOD_NOT_ALLOWED || allow != expected {
                faults.push(format!("{} with Allow {allow:?}, not 405 with {expected:?}", reply.status));
            }
        }
        faults
    }

    fn header_faults(&self, documented: Option<&Value>, reply: &Reply) -> Vec<String> {
        let mut faults = Vec::new();
        let none = Map::new();
        let documented = documented.and_then(Value::as_object).unwrap_or(&none);
        for (name, header) in documented {
            let header = self.resolve(header);
            let values: Vec<_> = reply.headers.get_all(name.as_str()).iter().collect();
            match values[..] {
                [] if header["required"] == json!(true) => faults.push(format!("header {name} is missing")),
                [] => {}
                [value] => {
                    let text = value.to_str().unwrap_or("(not text)");
                    let typed = match header["schema"]["type"].as_str() {
                        Some("integer") => text.parse::<i64>().map_or(json!(text), |n| json!(n)),
                        _ => json!(text),
                    };
                    if let Err(why) = jsonschema_check(&header["schema"], &typed) {
                        faults.push(format!("header {name}: {why}"));
                    }
                }
                _ => faults.push(format!("header {name} is there {} times", values.len())),
            }
        }
        for name in ONLY_WHERE_DOCUMENTED {
            if reply.headers.contains_key(*name) && !documented.keys().any(|k| k.eq_ignore_ascii_case(name)) {
                faults.push(format!("header {name} is not documented here"));
            }
        }
        faults
    }

    fn body_faults(
        &self,
        operation: &Operation<'_>,
        status: &str,
        response: &Value,
        reply: &Reply,
    ) -> Vec<String> {
        let content_type = reply.header("content-type").unwrap_or("(none)");
        let media = content_type.split(';').next().unwrap_or("").trim();
        let Some(content) = response.get("content").and_then(Value::as_object) else {
            return if reply.body.is_empty() {
                Vec::new()
            } else {
                vec!["a body where none is documented".into()]
            };
        };
        if !content.contains_key(media) {
            return vec![format!("content type {content_type} is not documented")];
        }
        // Public SDKs misread `application/json; charset=…` (contract.md §5).
        if media.ends_with("json") && media != content_type {
            return vec![format!("content type {content_type} has parameters")];
        }
        // Bytes without a schema: hashes and bundles are judged by whoever proves with them.
        if content[media].get("schema").is_none() {
            return Vec::new();
        }
        let pointer = media_pointer(operation, status, media);
        if media == "application/x-ndjson" {
            let text = String::from_utf8_lossy(&reply.body);
            let lines = text.lines().map(|line| match serde_json::from_str(line) {
                Ok(value) => self.check_component("AuditEntry", &value).err(),
                Err(e) => Some(format!("a line is no JSON: {e}")),
            });
            return lines.flatten().collect();
        }
        if media == "application/octet-stream" {
            return Vec::new();
        }
        let value = if media.ends_with("json") {
            match serde_json::from_slice(&reply.body) {
                Ok(value) => value,
                Err(e) => return vec![format!("the body is no JSON: {e}")],
            }
        } else {
            match std::str::from_utf8(&reply.body) {
                Ok(text) => json!(text),
                Err(e) => return vec![format!("the body is no UTF-8: {e}")],
            }
        };
        self.check(&pointer, &value).err().into_iter().collect()
    }

    /// What every error body holds, beyond its schema.
    fn problem_faults(&self, reply: &Reply) -> Vec<String> {
        let mut faults = Vec::new();
        if !matches!(reply.header("content-type"), Some("application/json" | "application/problem+json")) {
            faults.push(format!("an error as {:?}", reply.header("content-type")));
        }
        if reply.header("cache-control") != Some("no-store") {
            faults.push("an error that may be cached".into());
        }
        let Ok(problem) = serde_json::from_slice::<Value>(&reply.body) else {
            faults.push("the error body is no JSON".into());
            return faults;
        };
        faults.extend(self.check_component("Problem", &problem).err());
        let id = reply.header("x-request-id").map_or(Value::Null, |id| json!(id));
        if problem["trace_id"] != id || problem["clerk_trace_id"] != id {
            faults.push("trace_id is not the X-Request-Id".into());
        }
        if problem["status"] != json!(reply.status.as_u16()) {
            faults.push("status in the body is not the status of the answer".into());
        }
        let code = problem["errors"][0]["code"].as_str().unwrap_or("");
        if !problem["type"].as_str().is_some_and(|t| t.ends_with(&format!("/{code}"))) {
            faults.push("type does not end in the code".into());
        }
        faults
    }
}

/// Where the schema of a response's media type stands, through the response's own `$ref`.
fn media_pointer(operation: &Operation<'_>, status: &str, media: &str) -> String {
    // A JSON pointer within a URI: braces are percent-encoded.
    let escape = |s: &str| s.replace('~', "~0").replace('/', "~1").replace('{', "%7B").replace('}', "%7D");
    let shared = operation.spec["responses"][status].get("$ref").and_then(Value::as_str);
    let base = if let Some(target) = shared {
        target.trim_start_matches('#').to_owned()
    } else {
        let method = operation.method.as_str().to_ascii_lowercase();
        format!("/paths/{}/{method}/responses/{status}", escape(operation.path))
    };
    // A `$ref` that points into `components/responses` is a plain JSON pointer, which schemas may use too.
    format!("{base}/content/{}/schema", escape(media))
}

fn jsonschema_check(schema: &Value, value: &Value) -> Result<(), String> {
    let validator =
        jsonschema::options().with_draft(jsonschema::Draft::Draft202012).build(schema).expect("a schema");
    validator.validate(value).map_err(|e| e.to_string())
}

/// Calls a server and checks what it answers.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    secret: Option<String>,
}

impl Client {
    /// A client of the server at `base`, without a credential.
    pub fn new(base: impl Into<String>) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(std::time::Duration::from_secs(30))
            .build()
            .expect("a client");
        Self { http, base: base.into(), secret: None }
    }

    /// The same, calling with `secret`.
    pub fn with_secret(&self, secret: impl Into<String>) -> Self {
        Self { secret: Some(secret.into()), ..self.clone() }
    }

    /// A call that has not been sent.
    pub fn call(&self, method: Method, path: &str) -> Call {
        let mut headers = HeaderMap::new();
        if let Some(secret) = &self.secret {
            headers.insert("authorization", format!("Bearer {secret}").parse().expect("a header"));
        }
        Call { client: self.clone(), method, path: path.to_owned(), headers, body: None }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path).send().await
    }

    /// POST with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.call(Method::POST, path).json(body).send().await
    }

    /// POST `/v1/actor_tokens`.
    pub async fn mint(&self, body: &Value) -> Reply {
        self.post("/v1/actor_tokens", body).await
    }

    /// POST `/v1/actor_tokens/verify` with a token alone.
    pub async fn verify(&self, token: &str) -> Reply {
        self.post("/v1/actor_tokens/verify", &json!({ "token": token })).await
    }
}

/// One call on its way.
#[derive(Debug)]
pub struct Call {
    client: Client,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
}

impl Call {
    /// Adds a header, beside any of the same name.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let name: HeaderName = name.parse().expect("a header name");
        self.headers.append(name, HeaderValue::from_bytes(value.as_ref()).expect("a header value"));
        self
    }

    /// A JSON body.
    pub fn json(self, body: &Value) -> Self {
        self.bytes(serde_json::to_vec(body).expect("JSON")).header("content-type", "application/json")
    }

    /// A form.
    pub fn form(self, members: &[(&str, &str)]) -> Self {
        let mut url = reqwest::Url::parse("http://form.invalid/").expect("a URL");
        url.query_pairs_mut().extend_pairs(members);
        self.bytes(url.query().unwrap_or("")).header("content-type", "application/x-www-form-urlencoded")
    }

    /// Any body.
    pub fn bytes(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sends it, and fails unless the answer is what the contract describes.
    pub async fn send(self) -> Reply {
        let accept = self.headers.get("accept").and_then(|a| a.to_str().ok()).map(str::to_owned);
        let (method, path) = (self.method.clone(), self.path.clone());
        let reply = self.send_unchecked().await;
        let faults = CONTRACT.faults(&method, &path, accept.as_deref(), &reply);
        assert!(faults.is_empty(), "{method} {path} broke the contract: {}\n{reply:#?}", faults.join("; "));
        reply
    }

    /// Sends it, whatever comes back.
    pub async fn send_unchecked(self) -> Reply {
        let url = format!("{}{}", self.client.base, self.path);
        let mut request = self.client.http.request(self.method.clone(), &url).headers(self.headers);
        if let Some(body) = self.body {
            request = request.body(body);
        }
        let answered = request.send().await.unwrap_or_else(|e| panic!("{} {url}: {e:?}", self.method));
        let (status, headers) = (answered.status(), answered.headers().clone());
        let body = answered.bytes().await.unwrap_or_else(|e| panic!("{} {url}: {e:?}", self.method));
        Reply { status, headers, body: body.to_vec() }
    }
}

/// What was answered.
#[derive(Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("body", &String::from_utf8_lossy(&self.body))
            .finish()
    }
}

impl Reply {
    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// The body as JSON; `null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code of an error body.
    pub fn code(&self) -> Option<&'static str> {
        let code = self.json()["errors"][0]["code"].as_str()?.to_owned();
        CONTRACT.error_codes().into_iter().find(|known| **known == code)
    }

    /// The parameter an error is about.
    pub fn param(&self) -> Option<String> {
        self.json()["errors"][0]["meta"]["param_name"].as_str().map(str::to_owned)
    }

    /// Asserts a success and gives its body.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{self:#?}");
        self.json()
    }

    /// Asserts this error.
    #[track_caller]
    pub fn fails(&self, status: u16, code: &str) -> &Self {
        assert_eq!((self.status.as_u16(), self.code()), (status, Some(code)), "{self:#?}");
        self
    }
}

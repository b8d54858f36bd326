//! Takes out what must not leave the cluster: passwords, tokens, keys; on request also what is
//! merely private. When in doubt it masks.

use serde_json::Value;

const MASKED: &str = "***";
/// A field, variable or flag whose name contains one of these holds a secret...
const SECRET_NAMES: [&str; 9] = [
    "password",
    "passwd",
    "passphrase",
    "token",
    "secret",
    "credential",
    "private",
    "apikey",
    "authorization",
];
/// ...but these only name one, or say how it is mounted.
const NAMES_OF_SECRETS: [&str; 8] = [
    "secretname",
    "secretref",
    "passwordsecret",
    "secretkeyref",
    "automountserviceaccounttoken",
    "serviceaccounttoken",
    "imagepullsecrets",
    "tokenexpirationseconds",
];
const PEM_BEGIN: &str = "-----BEGIN ";
const PEM_END: &str = "-----END ";

/// Masks, and counts what it masked.
#[derive(Debug)]
pub(super) struct Mask {
    private: bool,
    /// Host of the API server, masked with `--redact`.
    server: Option<String>,
    count: usize,
}

impl Mask {
    /// With `private` also annotations, environment variables and the address of `server`.
    pub(super) fn new(private: bool, server: Option<&str>) -> Self {
        let host = server.map(|url| {
            let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
            let host = rest.split('/').next().unwrap_or_default();
            host.rsplit_once(':').map_or(host, |(host, _)| host).to_owned()
        });
        Self { private, server: host.filter(|host| !host.is_empty()), count: 0 }
    }

    /// How many places were masked so far.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// Masks inside a JSON value.
    pub(super) fn value(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(fields) => {
                // An environment variable: its name tells what its value is.
                let variable = fields.get("name").and_then(Value::as_str).map(is_secret);
                for (key, field) in fields.iter_mut() {
                    let secret = is_secret(key) || (key == "value" && variable == Some(true));
                    let private = self.private
                        && (key == "annotations" || (key == "value" && variable.is_some()));
                    if (secret || private) && holds_text(field) {
                        *field = MASKED.into();
                        self.count += 1;
                    } else {
                        self.value(field);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Masks inside text: a log, or a single value.
    pub(super) fn text(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut in_key = false;
        for line in text.split_inclusive('\n') {
            if in_key {
                in_key = !line.contains(PEM_END);
                continue;
            }
            if let Some(at) = line.find(PEM_BEGIN).filter(|_| line.contains("PRIVATE KEY")) {
                self.count += 1;
                out.push_str(line.get(..at).unwrap_or_default());
                out.push_str(MASKED);
                // A whole key on one line, its line feeds escaped, ends there.
                in_key = !line.contains(PEM_END);
                out.push('\n');
                continue;
            }
            out.push_str(&self.line(line));
        }
        // What is one value has no line feed of its own.
        if !text.ends_with('\n') && out.ends_with('\n') {
            out.pop();
        }
        match &self.server {
            Some(server) if self.private => out.replace(server.as_str(), "API-SERVER"),
            Some(_) | None => out,
        }
    }

    /// Words that are tokens by their form, `key=value` and `key: value` with a telling key, and
    /// `Bearer x`.
    fn line(&mut self, line: &str) -> String {
        let mut out = String::with_capacity(line.len());
        let (mut mask_next, mut named) = (false, false);
        for word in line.split_inclusive(|c: char| c.is_whitespace()) {
            let bare = word.trim_end();
            let space = word.get(bare.len()..).unwrap_or_default();
            let plain = bare.trim_matches(|c: char| "\"',;()[]{}".contains(c));
            let assigned = bare.split_once(['=', ':']).filter(|(key, _)| is_secret(key));
            if mask_next && !plain.is_empty() {
                // `password: Basic abc` and `Authorization: Bearer abc` take one word more.
                mask_next = matches!(plain, "Bearer" | "bearer" | "Basic" | "basic" | "=" | ":");
                out.push_str(if mask_next { bare } else { MASKED });
                self.count += usize::from(!mask_next);
            } else if let Some((key, value)) = assigned {
                let separator = bare.get(key.len()..=key.len()).unwrap_or("=");
                let value = value.trim_matches(|c: char| "\"'".contains(c));
                out.push_str(key);
                out.push_str(separator);
                mask_next = value.is_empty() || matches!(value, "Bearer" | "Basic");
                if !mask_next {
                    out.push_str(MASKED);
                    self.count += 1;
                }
            } else if is_token(plain) {
                out.push_str(&bare.replace(plain, MASKED));
                self.count += 1;
            } else {
                let assigned_apart = named && matches!(bare, "=" | ":");
                mask_next = assigned_apart || matches!(plain, "Bearer" | "bearer");
                out.push_str(bare);
            }
            named = is_secret(plain);
            out.push_str(space);
        }
        out
    }
}

fn is_secret(name: &str) -> bool {
    // Of a label or annotation the domain says nothing: `rbac.authorization.k8s.io/aggregate-to-view`.
    let name = name.rsplit('/').next().unwrap_or(name);
    let name: String =
        name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    !NAMES_OF_SECRETS.contains(&name.as_str())
        && SECRET_NAMES.iter().any(|secret| name.contains(secret))
}

/// A number or a flag is no secret; an object is looked into.
fn holds_text(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.is_empty(),
        Value::Object(fields) => !fields.is_empty() && fields.values().all(Value::is_string),
        Value::Array(items) => !items.is_empty() && items.iter().all(Value::is_string),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A JSON Web Token: three parts of base64url, of which the first is an object.
fn is_token(word: &str) -> bool {
    let word = word.rsplit(['=', '/', '"']).next().unwrap_or(word);
    let parts: Vec<&str> = word.split('.').collect();
    let base64 = |part: &&str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    parts.len() == 3 && word.starts_with("eyJ") && parts.iter().all(base64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrIn0.c2lnbmF0dXJl";

    #[test]
    fn secrets_in_objects_are_masked_and_names_of_secrets_stay() {
        let mut value = json!({
            "spec": {
                "password": "hunter2", "passwordSecret": {"name": "tor", "key": "password"},
                "authorizationToken": ["a", "b"], "replicas": 2,
                "env": [
                    {"name": "API_TOKEN", "value": "hunter2"},
                    {"name": "LEVEL", "value": "info"},
                ],
            },
            "data": TOKEN,
            "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"},
        });
        let mut mask = Mask::new(false, None);
        mask.value(&mut value);
        let text = value.to_string();
        assert!(!text.contains("hunter2") && !text.contains("eyJ"), "{text}");
        assert_eq!(value["spec"]["passwordSecret"]["name"], "tor");
        assert_eq!(value["spec"]["env"][1]["value"], "info");
        assert!(text.contains(r#""rbac.authorization.k8s.io/aggregate-to-view":"true""#), "{text}");
        assert_eq!(mask.count(), 4);
    }

    #[test]
    fn what_is_private_is_masked_on_request() {
        let object = json!({
            "metadata": {"annotations": {"owner": "mallory@example.com"}},
            "env": [{"name": "HTTP_PROXY", "value": "http://proxy.corp:3128"}],
            "message": "cannot reach api.corp.example",
        });
        let mut open = object.clone();
        Mask::new(false, Some("https://api.corp.example:6443")).value(&mut open);
        assert_eq!(open, object);
        let mut closed = object;
        Mask::new(true, Some("https://api.corp.example:6443")).value(&mut closed);
        let text = closed.to_string();
        for private in ["mallory", "proxy.corp", "api.corp"] {
            assert!(!text.contains(private), "{text}");
        }
    }

    #[test]
    fn secrets_in_logs_are_masked_however_they_are_written() {
        for line in [
            "peer tor-a password=hunter2 state=Idle",
            "peer tor-a password=\"hunter2\"",
            "md5 password: hunter2",
            "Authorization: Bearer hunter2 next",
            "sent bearer hunter2",
            "{\"token\": \"hunter2\"}",
            "SECRET = hunter2",
        ] {
            let mut mask = Mask::new(false, None);
            let out = mask.text(line);
            assert!(!out.contains("hunter2"), "{line} -> {out}");
            assert_eq!(mask.count(), 1, "{line} -> {out}");
        }
        let line = format!("token is ({TOKEN}), url=https://x/?t={TOKEN}\n");
        let out = Mask::new(false, None).text(&line);
        assert!(!out.contains("eyJhbGci"), "{out}");
    }

    #[test]
    fn a_private_key_is_masked_whole_and_a_certificate_stays() {
        let text =
            "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----\nb\n";
        assert_eq!(Mask::new(false, None).text(text), "a\n***\nb\n");
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----\n";
        assert_eq!(Mask::new(false, None).text(certificate), certificate);
    }

    #[test]
    fn ordinary_text_is_left_as_it_is() {
        for text in [
            "2026-01-01T00:00:00Z INFO peer established peer=tor-a asn=65001\n",
            "route 10.244.0.0/24 via 192.0.2.1\nno policy selects shop/web",
            "",
        ] {
            let mut mask = Mask::new(false, None);
            assert_eq!(mask.text(text), text);
            assert_eq!(mask.count(), 0);
        }
    }
}

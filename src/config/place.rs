//! The forms of addresses, URLs, routes, paths and hosts. Called by serde for the fields of the
//! sections, through `form`.
//!
//! Invariant: as in `form`, a problem names what would be valid and never repeats the text.

use std::net::SocketAddr;
use std::path::PathBuf;

use url::{Host, Url};

use super::form::{Form, clean_ends, form};
use super::value::{ApiListen, PublicUrlSetting};

form!(
    /// An IP address and a port.
    Address -> SocketAddr,
    "is not an address to listen on: write an IP address (no host name) and a port, \
     like \"127.0.0.1:8085\" or \"[::1]:8085\"",
    |text| text.parse().map_err(|_| Self::PROBLEM)
);

form!(
    /// `same`, or an address.
    ApiAddress -> ApiListen,
    "is not an address to listen on: write an IP address (no host name) and a port, \
     like \"127.0.0.1:8086\", or \"same\" for the callbacks listener",
    |text| match text {
        "same" => Ok(ApiListen::Same),
        _ => text.parse().map(ApiListen::Address).map_err(|_| Self::PROBLEM),
    }
);

form!(
    /// An http(s) URL, kept as written.
    HttpUrl -> Url, "is not a URL: write it like \"https://app.example.com/path\"", |text| {
        // The parser accepts texts that are more likely mistakes: "https:host", stray spaces.
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        let plain = !text.contains(|character: char| character.is_whitespace() || character.is_control());
        if !plain || !matches!(scheme.as_deref(), Some("http" | "https")) {
            return Err(Self::PROBLEM);
        }
        Url::parse(text).map_err(|_| Self::PROBLEM)
    }
);

form!(
    /// An http(s) URL that is extended by a route: no user, query or fragment.
    BaseUrl -> Url, "is not a URL: write it like \"https://host.example.com/path\"", |text| {
        let url = HttpUrl::parse(text).map_err(|_| Self::PROBLEM)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("holds a user or password: leave them out");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("holds a query or fragment: leave out what follows \"?\" or \"#\"");
        }
        Ok(url)
    }
);

form!(
    /// An http(s) URL that is called unchanged: no user, no fragment.
    TokenUrl -> Url, "is not a URL: write it like \"https://issuer.example.com/oauth/token\"", |text| {
        let url = HttpUrl::parse(text).map_err(|_| Self::PROBLEM)?;
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err("holds a user, password or fragment: leave them out");
        }
        Ok(url)
    }
);

form!(
    /// `ngrok`, or our own address on the internet.
    PublicUrl -> PublicUrlSetting,
    "is not a public URL: write \"ngrok\", or it like \"https://hooks.example.com\"",
    |text| match text {
        "ngrok" => Ok(PublicUrlSetting::Ngrok),
        _ if HttpUrl::parse(text).is_err() => Err(Self::PROBLEM),
        _ => BaseUrl::parse(text).map(PublicUrlSetting::Fixed),
    }
);

form!(
    /// The database's file.
    SqliteFile -> PathBuf,
    "is not a database: write \"sqlite://finishline.db\" (in the working directory) \
     or \"sqlite:///var/lib/finishline/finishline.db\" (its full path)",
    |text| {
        let file = text.strip_prefix("sqlite://").ok_or(Self::PROBLEM)?;
        if file.is_empty() || file.ends_with('/') || file.contains(['?', '#', '\0']) || file == ":memory:" {
            return Err(Self::PROBLEM);
        }
        path(file, Self::PROBLEM)
    }
);

form!(
    /// A file's path.
    FilePath -> PathBuf,
    "is not a path: write it like \"/var/lib/finishline/finishline.spool\"",
    |text| path(text, Self::PROBLEM)
);

/// Accepts a path as written, without shell expansion.
fn path(text: &str, problem: &'static str) -> Result<PathBuf, &'static str> {
    clean_ends(text)?;
    if text.contains('\0') {
        return Err(problem);
    }
    if text == "~" || text.starts_with("~/") || text.starts_with('$') {
        return Err("begins with what only a shell expands: write the path in full");
    }
    Ok(PathBuf::from(text))
}

form!(
    /// A folder's path.
    FolderPath -> PathBuf,
    "is not a path: write it like \"/var/lib/finishline\"",
    |text| path(text, Self::PROBLEM)
);

form!(
    /// A route below the Engine's base URL.
    Route -> String, "is not a route: write it like \"/job\"", |text| {
        if !text.starts_with('/') || text.contains(|character: char| "?#".contains(character) || character.is_whitespace()) {
            return Err(Self::PROBLEM);
        }
        Ok(text.to_owned())
    }
);

form!(
    /// A route with a placeholder for the Engine's job id.
    ResultRoute -> String, "is not a route with the job's id: write it like \"/job/{id}\"", |text| {
        let route = Route::parse(text).map_err(|_| Self::PROBLEM)?;
        if route.matches("{id}").count() != 1 {
            return Err(Self::PROBLEM);
        }
        Ok(route)
    }
);

form!(
    /// A JSON pointer (RFC 6901) to something inside the document.
    JsonPointer -> String, "is not a JSON pointer: write it like \"/jobId\" or \"/job/id\"", |text| {
        let escaped = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if !text.starts_with('/') || !escaped {
            return Err(Self::PROBLEM);
        }
        Ok(text.to_owned())
    }
);

form!(
    /// A host, a host and a port, or any host; in lower case.
    AllowedHost -> String,
    "is not a host: write it like \"app.example.com\" or \"app.example.com:8443\", or \"*\" for any",
    |text| {
        if text == "*" {
            return Ok(text.to_owned());
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        if host.contains(['*', '%']) {
            return Err(Self::PROBLEM);
        }
        let host = Host::parse(host).map_err(|_| Self::PROBLEM)?;
        let Some(port) = port else { return Ok(host.to_string()) };
        let port: u16 = port.parse().map_err(|_| Self::PROBLEM)?;
        Ok(format!("{host}:{port}"))
    }
);

form!(
    /// The store of mirrored files.
    StoreUrl -> String,
    "is not a file store: write \"file:///var/lib/finishline/files\", \"s3://bucket/prefix\", \
     \"az://container/prefix\" or \"gs://bucket/prefix\"",
    |text| {
        let url = Url::parse(text).map_err(|_| Self::PROBLEM)?;
        let plain = url.query().is_none() && url.fragment().is_none() && !text.contains(['@', ' ']);
        let known = match url.scheme() {
            "file" => text.starts_with("file:///") && url.path().len() > 1,
            "s3" | "az" | "gs" => text.contains("://") && url.host_str().is_some_and(|bucket| !bucket.is_empty()),
            // For tests: lost when the process ends, so the problem does not recommend it.
            "memory" => text == "memory:///",
            _ => false,
        };
        if !plain || !known {
            return Err(Self::PROBLEM);
        }
        Ok(text.to_owned())
    }
);

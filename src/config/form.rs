//! How the text of one setting is parsed; each form says what a valid text looks like. Called by
//! serde for the fields of the sections; `place` holds the forms of addresses and paths.
//!
//! Invariant: a problem names what would be valid and never repeats the text, which may be a
//! secret.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytesize::ByteSize;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use sha2::{Digest as _, Sha256};
use tracing_subscriber::filter::Targets;

use super::secret;
use super::value::{LogFormat, ReconcileAfter, RunningSetting, Scope, Secret as SecretText};

/// Longer than any use, and far below where adding it to a time overflows.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);
/// Larger than any disk here, and within the signed sizes of SQLite and file systems.
const LARGEST: u64 = ByteSize::pib(1).0;
const SMALLEST_BODY: u64 = ByteSize::kib(1).0;
const LARGEST_BODY: u64 = ByteSize::gib(1).0;
/// 128 bits in base64. A secret with fewer characters, or fewer different ones, can be guessed.
const SECRET_CHARACTERS: usize = 22;
const DIFFERENT_CHARACTERS: usize = 10;
/// Texts that are often hashed by mistake: an empty variable, a file's line end, a placeholder.
const NO_KEYS: [&str; 12] =
    ["", "\n", "\r\n", " ", "\0", "…", "...", "\"\"", "key", "secret", "password", "changeme"];

pub(super) const NUMBER: &str = "is not a whole number: write it like 4096";
const DURATION: &str = r#"is not a duration: write it like "30s", "15m", "48h" or "90d""#;
const SIZE: &str = r#"is not a size: write it like "512KiB", "16MiB" or "2GiB""#;

/// How to parse the text of a setting.
pub(super) trait Form {
    /// The parsed value.
    type Value;
    /// "is not …: write it like …"; follows the key and the value.
    const PROBLEM: &'static str;

    /// Parses the text, or returns the problem.
    fn parse(text: &str) -> Result<Self::Value, &'static str>;
}

macro_rules! form {
    ($(#[$documentation:meta])* $name:ident -> $value:ty, $problem:expr, |$text:ident| $parse:expr) => {
        $(#[$documentation])*
        pub(super) struct $name;

        impl Form for $name {
            type Value = $value;
            const PROBLEM: &'static str = $problem;

            fn parse($text: &str) -> Result<$value, &'static str> {
                $parse
            }
        }
    };
}

pub(super) use form;

/// Reads a setting of form `F`.
pub(super) fn one<'de, F: Form, D: Deserializer<'de>>(source: D) -> Result<F::Value, D::Error> {
    source.deserialize_str(TextVisitor::<F>(PhantomData))
}

/// Reads a setting of form `F`; empty is `None`.
pub(super) fn optional<'de, F: Form, D: Deserializer<'de>>(
    source: D,
) -> Result<Option<F::Value>, D::Error> {
    one::<OrEmpty<F>, D>(source)
}

/// Reads a setting of form `F` that is present; for a missing one serde's default applies.
pub(super) fn present<'de, F: Form, D: Deserializer<'de>>(
    source: D,
) -> Result<Option<F::Value>, D::Error> {
    one::<F, D>(source).map(Some)
}

/// Reads a list of form `F`.
pub(super) fn list<'de, F: Form, D: Deserializer<'de>>(
    source: D,
) -> Result<Vec<F::Value>, D::Error> {
    let items = Vec::<Item<F>>::deserialize(source)?;
    Ok(items.into_iter().map(|item| item.0).collect())
}

/// Reads a list of form `F` that is present.
pub(super) fn present_list<'de, F: Form, D: Deserializer<'de>>(
    source: D,
) -> Result<Option<Vec<F::Value>>, D::Error> {
    list::<F, D>(source).map(Some)
}

/// Reads a whole number from 1 to `MAX`.
pub(super) fn count<'de, D: Deserializer<'de>, N: TryFrom<i64>, const MAX: i64>(
    source: D,
) -> Result<N, D::Error> {
    source.deserialize_i64(CountVisitor::<N, MAX>(PhantomData))
}

struct CountVisitor<N, const MAX: i64>(PhantomData<N>);

impl<N: TryFrom<i64>, const MAX: i64> Visitor<'_> for CountVisitor<N, MAX> {
    type Value = N;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(NUMBER)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<N, E> {
        let known = N::try_from(number).ok().filter(|_| (1..=MAX).contains(&number));
        known.ok_or_else(|| {
            E::custom(format_args!("is out of range: it must be between 1 and {MAX}"))
        })
    }
}

struct TextVisitor<F>(PhantomData<F>);

impl<F: Form> Visitor<'_> for TextVisitor<F> {
    type Value = F::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(F::PROBLEM)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<F::Value, E> {
        F::parse(text).map_err(E::custom)
    }
}

struct Item<F: Form>(F::Value);

impl<'de, F: Form> Deserialize<'de> for Item<F> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        one::<F, D>(source).map(Self)
    }
}

struct OrEmpty<F>(PhantomData<F>);

impl<F: Form> Form for OrEmpty<F> {
    type Value = Option<F::Value>;
    const PROBLEM: &'static str = F::PROBLEM;

    fn parse(text: &str) -> Result<Self::Value, &'static str> {
        if text.is_empty() {
            return Ok(None);
        }
        F::parse(text).map(Some)
    }
}

form!(
    /// Any text, including an empty one.
    Text -> String, "is not a text: write it in quotes", |text| {
        clean_ends(text)?;
        Ok(text.to_owned())
    }
);

/// Blanks around a name or a path are a typing mistake and would make it a different name.
pub(super) fn clean_ends(text: &str) -> Result<(), &'static str> {
    if text.trim() != text {
        return Err("begins or ends with a blank or a line end: leave it out");
    }
    if text.chars().any(char::is_control) {
        return Err("holds a control character: leave it out");
    }
    Ok(())
}

form!(
    /// A name that identifies an entry of a list.
    Name -> String, "is not a name: write it like \"backend\"", |text| {
        if text.trim().is_empty() {
            return Err("is empty: give it a name");
        }
        clean_ends(text)?;
        Ok(text.to_owned())
    }
);

form!(
    /// A duration; zero is allowed.
    AnyDuration -> Duration, DURATION, |text| {
        let duration = humantime::parse_duration(text).map_err(|_| DURATION)?;
        if duration > LONGEST {
            return Err("is too long: 100 years are the most");
        }
        Ok(duration)
    }
);

form!(
    /// A duration above zero.
    PositiveDuration -> Duration, DURATION, |text| {
        let duration = AnyDuration::parse(text)?;
        if duration.is_zero() {
            return Err("is too short: it must be longer than zero");
        }
        Ok(duration)
    }
);

form!(
    /// A duration above zero, or `auto`.
    DueAfter -> ReconcileAfter, DURATION, |text| {
        match text {
            "auto" => Ok(ReconcileAfter::Auto),
            _ => PositiveDuration::parse(text).map(ReconcileAfter::Fixed),
        }
    }
);

form!(
    /// A size in bytes; zero is allowed.
    AnySize -> u64, SIZE, |text| {
        let size = text.parse::<ByteSize>().map_err(|_| SIZE)?;
        if size.0 > LARGEST {
            return Err("is too large: 1PiB is the most");
        }
        Ok(size.0)
    }
);

form!(
    /// A size in bytes above zero.
    PositiveSize -> u64, SIZE, |text| {
        let size = AnySize::parse(text)?;
        if size == 0 {
            return Err("is too small: it must be larger than zero");
        }
        Ok(size)
    }
);

form!(
    /// The limit of a body, in bytes.
    BodyLimit -> usize, SIZE, |text| {
        let size = AnySize::parse(text)?;
        if !(SMALLEST_BODY..=LARGEST_BODY).contains(&size) {
            return Err("is out of range: it must be between 1KiB and 1GiB");
        }
        usize::try_from(size).map_err(|_| "is larger than this machine's memory can address")
    }
);

form!(
    /// Bytes of memory.
    MemorySize -> usize, SIZE, |text| {
        usize::try_from(PositiveSize::parse(text)?)
            .map_err(|_| "is larger than this machine's memory can address")
    }
);

form!(
    /// A secret that was issued by others.
    Secret -> SecretText, "is not a text: write it in quotes", |text| {
        Ok(SecretText::new(secret::clean(text)?))
    }
);

form!(
    /// A secret that is part of a path.
    InboxSecret -> SecretText,
    "is not an inbox secret: write at least 22 letters, digits, \"-\", \"_\", \".\" or \"~\"",
    |text| {
        let text = secret::clean(text)?;
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        if !text.bytes().all(safe) {
            return Err("holds characters that do not belong into a URL: \
                        use letters, digits, \"-\", \"_\", \".\" and \"~\"");
        }
        hard_to_guess(text)?;
        Ok(SecretText::new(text))
    }
);

/// Checks that a secret of ASCII, which a person may have made up, is hard to guess.
fn hard_to_guess(text: &str) -> Result<(), &'static str> {
    if text.len() < SECRET_CHARACTERS {
        return Err("is too short: use at least 22 characters, as `finishline key new` makes them");
    }
    let different: HashSet<u8> = text.bytes().collect();
    if different.len() < DIFFERENT_CHARACTERS {
        return Err(
            "repeats itself: use at least 10 different characters, as `finishline key new` \
                    makes them",
        );
    }
    Ok(())
}

form!(
    /// A signing secret of Standard Webhooks.
    WebhookSecret -> SecretText,
    "is not a webhook secret: write \"whsec_\" and base64, as `echo whsec_$(openssl rand -base64 24)` makes it",
    |text| {
        let text = secret::clean(text)?;
        Self::key(text).map(|_| SecretText::new(text)).ok_or(Self::PROBLEM)
    }
);

impl WebhookSecret {
    /// The bytes that sign.
    pub(super) fn key(text: &str) -> Option<Vec<u8>> {
        let key = STANDARD.decode(text.strip_prefix("whsec_")?).ok()?;
        (!key.is_empty()).then_some(key)
    }
}

form!(
    /// An API key, kept as its SHA-256.
    ApiKey -> [u8; 32], "is not a key: write at least 22 characters in quotes", |text| {
        let text = secret::clean(text)?;
        // It is sent in a header, where other characters are not possible.
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("holds spaces, control characters or characters beyond ASCII: \
                        use letters, digits and punctuation");
        }
        hard_to_guess(text)?;
        Ok(Sha256::digest(text.as_bytes()).into())
    }
);

form!(
    /// The SHA-256 of a key in hex.
    KeyDigest -> [u8; 32], "is not a SHA-256: write it as 64 hex digits", |text| {
        let (text, mut digest) = (secret::clean(text)?, [0; 32]);
        if text.len() != 2 * digest.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Self::PROBLEM);
        }
        for (index, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16)
                .map_err(|_| Self::PROBLEM)?;
        }
        let is_of = |text: &&str| <[u8; 32]>::from(Sha256::digest(text)) == digest;
        if NO_KEYS.iter().any(is_of) {
            return Err("is the digest of nothing, or of a word that is no key: `finishline key new` \
                        prints a key with its digest");
        }
        Ok(digest)
    }
);

form!(
    /// A scope's name.
    ScopeName -> Scope, r#"is not a scope: write "submit", "read", "operate" or "erase""#, |text| {
        Scope::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(Self::PROBLEM)
    }
);

form!(
    /// How a running job looks.
    Running -> RunningSetting,
    r#"is not a choice: write "auto", "202", "404", "no-success" or "success-false""#,
    |text| match text {
        "auto" => Ok(RunningSetting::Auto),
        "202" => Ok(RunningSetting::Status202),
        "404" => Ok(RunningSetting::Status404),
        "no-success" => Ok(RunningSetting::NoSuccess),
        "success-false" => Ok(RunningSetting::SuccessFalse),
        _ => Err(Self::PROBLEM),
    }
);

form!(
    /// How log lines are written.
    LogStyle -> LogFormat, r#"is not a choice: write "text" or "json""#, |text| match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(Self::PROBLEM),
    }
);

form!(
    /// What is logged: a level, and levels of modules.
    LogLevel -> Targets,
    "is not a log level: write \"error\", \"warn\", \"info\", \"debug\" or \"trace\", \
     or per module like \"info,finishline::engine=debug\"",
    |text| {
        // tracing takes a mistyped level for a module name, which silences all other modules.
        let level = |part: &str| {
            let level = part.to_ascii_lowercase();
            ["off", "error", "warn", "info", "debug", "trace"].contains(&level.as_str())
        };
        // With these characters tracing filters by spans and fields; here they would match no
        // module.
        let is_filter = text.contains(['[', ']', '{', '}']);
        let directives: Vec<&str> = text.split(',').map(str::trim).collect();
        if is_filter || !directives.iter().all(|part| part.contains('=') || level(part)) {
            return Err(Self::PROBLEM);
        }
        directives.join(",").parse::<Targets>().map_err(|_| Self::PROBLEM)
    }
);

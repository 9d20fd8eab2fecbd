//! Counters, gauges and histograms with fixed labels.
//!
//! Every metric of the program is one of these, declared in `telemetry`. Invariant: a label's value
//! is a text from the program's source. Text of a request, a reply or a file cannot become one, so
//! the number of series is bounded at build time.

/// The value of a label: one of a closed list of texts in the program's source.
///
/// ```compile_fail
/// let given = String::from("text of a request");
/// finishline::telemetry::Label::from(given.as_str());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Label(&'static str);

impl Label {
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl From<&'static str> for Label {
    fn from(text: &'static str) -> Self {
        Self(text)
    }
}

macro_rules! figure {
    ($(#[$doc:meta])* $kind:ident, $register:ident, $describe:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $kind<const LABELS: usize> {
            name: &'static str,
            labels: [&'static str; LABELS],
            help: &'static str,
        }

        impl<const LABELS: usize> $kind<LABELS> {
            pub(super) const fn new(
                name: &'static str,
                labels: [&'static str; LABELS],
                help: &'static str,
            ) -> Self {
                Self { name, labels, help }
            }

            /// The series with these values, in the order of the labels' names.
            pub fn of(&self, values: [Label; LABELS]) -> metrics::$kind {
                let pairs: [(&'static str, &'static str); LABELS] =
                    std::array::from_fn(|place| (self.labels[place], values[place].0));
                metrics::$register!(self.name, &pairs)
            }

            pub(super) fn describe(&self) {
                metrics::$describe!(self.name, self.help);
            }
        }
    };
}

figure! {
    /// A value that only grows.
    Counter, counter, describe_counter
}
figure! {
    /// A value that goes up and down.
    Gauge, gauge, describe_gauge
}
figure! {
    /// A distribution of values.
    Histogram, histogram, describe_histogram
}

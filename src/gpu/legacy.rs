//! Cards that the installed driver ignores, as the kernel's log reports them: they have no driver, but are on the PCI bus
//! and healthy.

use super::pci::PciId;

/// The result of the driver's last look at the PCI bus.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Legacy {
    cards: Vec<Card>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Card {
    /// Older messages name the product, newer ones the PCI address.
    name: Option<String>,
    place: Option<PciId>,
    needs: Needs,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Needs {
    /// `470.xx`; None where the log does not say which.
    LegacyDriver(Option<String>),
    /// The open kernel module needs a GSP, which the card does not have.
    ProprietaryModule,
    /// The driver does not know the card: it may be too old or too new for it.
    OtherRelease,
}

impl Legacy {
    /// How many of `unbound`, the cards on the bus without a driver, need a legacy driver.
    pub(crate) fn ignored(&self, unbound: &[PciId]) -> usize {
        let legacy = || self.cards.iter().filter(|card| matches!(card.needs, Needs::LegacyDriver(_)));
        match legacy().any(|card| card.place.is_some()) {
            true => unbound.iter().filter(|at| legacy().any(|card| card.place == Some(**at))).count(),
            false => legacy().count().min(unbound.len()),
        }
    }

    /// What each card needs, one sentence each.
    pub(crate) fn sentences(&self) -> Vec<String> {
        // A legacy driver is named together with the product; a line with the address alone adds nothing.
        let named = self.cards.iter().any(|card| card.name.is_some());
        let listed = |card: &&Card| !(named && matches!(card.needs, Needs::LegacyDriver(None)));
        let mut all: Vec<String> = self.cards.iter().filter(listed).map(Card::sentence).collect();
        all.dedup();
        all
    }

    /// The sentences as the end of a message about a missing driver; empty without any.
    pub(crate) fn because(&self) -> String {
        self.sentences().iter().map(|sentence| format!("; by the kernel's log {sentence}")).collect()
    }
}

impl Card {
    fn sentence(&self) -> String {
        let card = match (&self.name, self.place) {
            (Some(name), _) => format!("the card {name}"),
            (None, Some(place)) => format!("the card at {place}"),
            (None, None) => "a card".into(),
        };
        match &self.needs {
            Needs::LegacyDriver(Some(branch)) => format!("{card} needs NVIDIA's legacy driver {branch}"),
            Needs::LegacyDriver(None) => format!("{card} needs one of NVIDIA's legacy drivers"),
            Needs::ProprietaryModule => {
                format!("{card} needs NVIDIA's proprietary kernel module; the open one does not support it")
            }
            Needs::OtherRelease => format!("{card} is not supported by the installed driver"),
        }
    }
}

/// The messages of one look at the bus arrive within this time.
const ONE_LOOK_US: u64 = 5_000_000;
/// The driver's sentences are shorter.
const MAX_SENTENCE: usize = 600;
/// No machine has more.
const MAX_CARDS: usize = 64;

/// Finds such cards in the kernel's log.
#[derive(Debug, Default)]
pub(crate) struct LegacyLog {
    found: Legacy,
    /// When the last of them was found, in the log's time.
    at: u64,
    /// The text so far: a sentence can continue over several records.
    sentence: String,
}

impl LegacyLog {
    pub(crate) fn found(&self) -> &Legacy {
        &self.found
    }

    /// The text of one record of the kernel's log, and its time in microseconds.
    pub(crate) fn read(&mut self, record: &str, micros: u64) {
        for line in record.split("\\x0a") {
            let Some((_, said)) = line.split_once("NVRM:") else { continue };
            let said = said.trim();
            if said.starts_with("loading NVIDIA") && micros > self.at + ONE_LOOK_US {
                // Another driver: it reports again which cards it ignores.
                self.found = Legacy::default();
            }
            if said.starts_with("The ") || said.starts_with("ignoring ") || self.sentence.len() > MAX_SENTENCE {
                self.sentence.clear();
            }
            self.sentence.push_str(said);
            self.sentence.push(' ');
            if let Some(card) = card(&self.sentence) {
                self.sentence.clear();
                self.add(card, micros);
            }
        }
    }

    fn add(&mut self, card: Card, micros: u64) {
        if micros > self.at + ONE_LOOK_US {
            self.found = Legacy::default();
        }
        self.at = micros;
        let repeated = card.place.is_some() && self.found.cards.contains(&card);
        if !repeated && self.found.cards.len() < MAX_CARDS {
            self.found.cards.push(card);
        }
    }
}

/// The card that a sentence is about, once it is complete.
fn card(sentence: &str) -> Option<Card> {
    let word = |text: &str| text.split_whitespace().next().map(|word| crate::sys::text::start(word, 32));
    if let Some(rest) = sentence.strip_prefix("ignoring the legacy GPU ") {
        let place = PciId::parse(rest.trim())?;
        return Some(Card { name: None, place: Some(place), needs: Needs::LegacyDriver(None) });
    }
    let (who, what) = sentence.strip_prefix("The ")?.split_once("installed in this system is ")?;
    if let Some(rest) = what.strip_prefix("supported through the NVIDIA ") {
        rest.contains(" Legacy driver").then_some(())?;
        let name = who.trim().trim_end_matches("GPU").trim();
        // Some messages repeat it.
        let name = name.strip_prefix("NVIDIA NVIDIA ").map_or(name.to_owned(), |name| format!("NVIDIA {name}"));
        let needs = Needs::LegacyDriver(word(rest));
        return Some(Card { name: Some(crate::sys::text::start(&name, 96)), place: None, needs });
    }
    let rest = what.strip_prefix("not supported by ")?;
    let place = PciId::parse(who.strip_prefix("NVIDIA GPU ")?.split_whitespace().next()?)?;
    let needs = if rest.starts_with("open nvidia.ko") {
        Needs::ProprietaryModule
    } else {
        rest.contains("driver release").then_some(Needs::OtherRelease)?
    };
    Some(Card { name: None, place: Some(place), needs })
}

#[cfg(test)]
mod tests;

//! The types of messages, and what reads the content of each.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use strum::{EnumIter, EnumString, IntoStaticStr};

use super::media::MediaKind;
use super::read::Reading;
use super::{
    audio, button, contacts, document, edit, image, interactive, location, order, reaction, revoke,
    sticker, system, template, text, unsupported, video,
};

/// A message's `type`. Any word that isn't here is `Unknown`: in the event as sent, in routing keys
/// `unknown`, since a stranger must not be able to make routing keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum MessageType {
    Audio,
    Button,
    Contacts,
    Document,
    Edit,
    Ephemeral,
    Errors,
    Group,
    Image,
    Interactive,
    Location,
    MediaPlaceholder,
    MessageHistoryStatus,
    Order,
    Reaction,
    RequestWelcome,
    Revoke,
    Sticker,
    System,
    Template,
    Text,
    Unknown,
    Unsupported,
    Video,
    Voice,
}

impl MessageType {
    pub fn of(name: &str) -> Self {
        name.parse().unwrap_or(Self::Unknown)
    }

    pub fn name(self) -> &'static str {
        self.into()
    }

    /// What reads the content, which stands under the type's name; of types without content: none.
    pub(super) fn processor(self) -> Option<Processor> {
        match self {
            Self::Audio | Self::Voice => media::<audio::Audio>(MediaKind::Audio),
            Self::Button => typed::<button::Button>(),
            Self::Contacts => typed::<contacts::Contacts>(),
            Self::Document => media::<document::Document>(MediaKind::Document),
            Self::Edit => typed::<edit::Edit>(),
            Self::Image => media::<image::Image>(MediaKind::Image),
            Self::Interactive => typed::<interactive::Interactive>(),
            Self::Location => typed::<location::Location>(),
            Self::Order => typed::<order::Order>(),
            Self::Reaction => typed::<reaction::Reaction>(),
            Self::Revoke => typed::<revoke::Revoke>(),
            Self::Sticker => media::<sticker::Sticker>(MediaKind::Sticker),
            Self::System => typed::<system::System>(),
            Self::Template => typed::<template::Template>(),
            Self::Text => typed::<text::TextContent>(),
            Self::Unsupported => typed::<unsupported::Unsupported>(),
            Self::Video => media::<video::Video>(MediaKind::Video),
            Self::Ephemeral
            | Self::Errors
            | Self::Group
            | Self::MediaPlaceholder
            | Self::MessageHistoryStatus
            | Self::RequestWelcome
            | Self::Unknown => None,
        }
    }
}

/// How a type's content is read, and what it looks like in an event.
#[derive(Clone, Copy)]
pub(super) struct Processor {
    /// Reads the content that stood at the path.
    pub(super) read: fn(&mut Reading<'_>, Value, &str) -> Option<Box<RawValue>>,
    pub(super) schema: fn(&mut SchemaGenerator) -> Schema,
    /// The content is media that can be fetched.
    pub(super) media: Option<MediaKind>,
}

#[expect(clippy::unnecessary_wraps, reason = "reads best in the match")]
fn typed<T: DeserializeOwned + Default + Serialize + JsonSchema>() -> Option<Processor> {
    Some(Processor {
        read: |reading, content, at| to_raw_value(&reading.typed::<T>(content, at)).ok(),
        schema: |generator| generator.subschema_for::<T>(),
        media: None,
    })
}

fn media<T: DeserializeOwned + Default + Serialize + JsonSchema>(
    kind: MediaKind,
) -> Option<Processor> {
    Some(Processor {
        media: Some(kind),
        ..typed::<T>()?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use strum::IntoEnumIterator;

    #[test]
    fn a_type_is_read_by_its_name() {
        for kind in MessageType::iter() {
            assert_eq!(MessageType::of(kind.name()), kind);
        }
        assert_eq!(MessageType::RequestWelcome.name(), "request_welcome");
        assert_eq!(MessageType::of("hologram"), MessageType::Unknown);
        assert_eq!(MessageType::of("Text"), MessageType::Unknown);
    }
}

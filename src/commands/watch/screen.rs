//! Messages as they come, for people: a line each, and on a terminal the words of an answer one after the other.

use std::collections::HashMap;

use vita_messages::kinds::{Answer, Delta};
use vita_messages::{Body, Message, SourceName};

use super::dialogue::{answer_line, one_line};
use super::render;
use crate::terminal::plain;

/// Session and generation: a greater one is a newer answer.
type Generation = (u64, u64);

/// What is on the last line, and which answers are over.
#[derive(Debug, Default)]
pub struct Screen {
    /// Words are appended to a line that is not ended yet.
    streams_words: bool,
    /// The oldest of which words are still to be shown.
    newest: HashMap<SourceName, Generation>,
    open: Option<Open>,
}

/// A line that may go on.
#[derive(Debug)]
struct Open {
    source: SourceName,
    generation: Generation,
    words: String,
}

impl Screen {
    /// `streams_words`: a terminal is there to append to a line.
    pub fn new(streams_words: bool) -> Self {
        Self {
            streams_words,
            ..Self::default()
        }
    }

    /// What to write for a message; nothing for words of an answer that is over.
    pub fn show(&mut self, message: &Message) -> String {
        match &message.body {
            Body::Delta(delta) => self.words(message, delta),
            Body::Answer(answer) => self.answer(message, answer),
            Body::Query(query) => {
                self.meet(&message.source, (query.session_id, query.generation_id));
                self.line(&render::line(message))
            }
            _ => self.line(&render::line(message)),
        }
    }

    /// A line of its own.
    pub fn line(&mut self, text: &str) -> String {
        let end = if self.open.take().is_some() { "\n" } else { "" };
        format!("{end}{}\n", plain(text))
    }

    /// Whether a generation is the newest of its source, or newer.
    fn meet(&mut self, source: &SourceName, generation: Generation) -> bool {
        match self.newest.get_mut(source) {
            Some(newest) if *newest > generation => false,
            Some(newest) => {
                *newest = generation;
                true
            }
            None => {
                self.newest.insert(source.clone(), generation);
                true
            }
        }
    }

    fn words(&mut self, message: &Message, delta: &Delta) -> String {
        let generation = (delta.session_id, delta.generation_id);
        if !self.meet(&message.source, generation) {
            return String::new();
        }
        if !self.streams_words {
            return self.line(&render::line(message));
        }
        let words = one_line(&delta.text);
        if let Some(open) = &mut self.open
            && open.generation == generation
            && open.source == message.source
        {
            open.words.push_str(&delta.text);
            return plain(&words).into_owned();
        }
        let end = if self.open.is_some() { "\n" } else { "" };
        self.open = Some(Open {
            source: message.source.clone(),
            generation,
            words: delta.text.clone(),
        });
        let start = format!("answer {}: {words}", delta.generation_id);
        format!("{end}{}", plain(&render::with_time(message, &start)))
    }

    fn answer(&mut self, message: &Message, answer: &Answer) -> String {
        // Words go another way than answers, which may overtake them: those of this one are over.
        self.meet(
            &message.source,
            (answer.session_id, answer.generation_id + 1),
        );
        let are_shown = self.open.as_ref().is_some_and(|open| {
            open.source == message.source
                && open.generation == (answer.session_id, answer.generation_id)
                && open.words == answer.text
        });
        self.line(&render::with_time(message, &answer_line(answer, are_shown)))
    }
}

#[cfg(test)]
mod tests {
    use vita_messages::WallTime;
    use vita_messages::kinds::{
        Question, QuestionKind, Reset, State, StateProbabilities, Timings, Tokens, Verdict,
    };

    use super::*;

    const TIME: &str = "2025-11-24 16:00:00.000Z  ";

    fn message(source: &str, body: impl Into<Body>) -> Message {
        let time = WallTime::from_unix_ns(1_764_000_000_000_000_000);
        Message::new(&SourceName::new(source).unwrap(), time, body)
    }

    fn delta(generation_id: u64, sequence: u64, text: &str) -> Delta {
        Delta {
            session_id: 1,
            turn_id: generation_id,
            generation_id,
            sequence,
            text: text.into(),
            stream_time_ns: 0,
        }
    }

    fn answer(generation_id: u64, text: &str) -> Answer {
        Answer {
            session_id: 1,
            turn_id: generation_id,
            generation_id,
            question: Question {
                kind: QuestionKind::Text,
                text: Some("who?".into()),
                utterance_id: None,
                start_stream_time_ns: 0,
                end_stream_time_ns: 0,
                capture_time: None,
            },
            state: State::Text,
            verdict: Verdict {
                state_probabilities: StateProbabilities {
                    query: 0.0,
                    noise: 0.0,
                    text: 1.0,
                },
                judging_ns: 0,
                frames: Vec::new(),
                staleness_ns: None,
            },
            text: text.into(),
            cut_off: None,
            timings: Timings::default(),
            tokens: Tokens {
                answer: 2,
                ..Tokens::default()
            },
            model: None,
            stream_time_ns: 0,
        }
    }

    #[test]
    fn words_go_on_one_line_and_are_not_repeated() {
        let mut screen = Screen::new(true);
        let first = screen.show(&message("door", delta(1, 0, "A\n")));
        assert_eq!(first, format!("{TIME}door  answer 1: A "));
        assert_eq!(
            screen.show(&message("door", delta(1, 1, "cup\u{1b}"))),
            "cup\\u{1b}"
        );
        let last = screen.show(&message("door", answer(1, "A\ncup\u{1b}")));
        assert_eq!(last, format!("\n{TIME}door  answer 1 (2 tokens)\n"));
    }

    #[test]
    fn an_answer_whose_words_were_missed_is_shown_whole() {
        let mut screen = Screen::new(true);
        screen.show(&message("door", delta(1, 1, "cup")));
        let last = screen.show(&message("door", answer(1, "A cup")));
        assert_eq!(last, format!("\n{TIME}door  answer 1: A cup (2 tokens)\n"));
    }

    #[test]
    fn words_that_their_answer_overtook_are_passed_over() {
        let mut screen = Screen::new(true);
        screen.show(&message("door", delta(1, 0, "A ")));
        let last = screen.show(&message("door", answer(1, "A cup")));
        assert_eq!(last, format!("\n{TIME}door  answer 1: A cup (2 tokens)\n"));
        assert_eq!(screen.show(&message("door", delta(1, 1, "cup"))), "");
        let next = screen.show(&message("door", delta(2, 0, "A dog")));
        assert_eq!(next, format!("{TIME}door  answer 2: A dog"));
    }

    #[test]
    fn words_of_an_older_answer_are_passed_over() {
        let mut screen = Screen::new(true);
        screen.show(&message("door", delta(2, 0, "new")));
        assert_eq!(screen.show(&message("door", delta(1, 9, "old"))), "");
        // Another source counts for itself.
        let other = screen.show(&message("hall", delta(1, 0, "yes")));
        assert_eq!(other, format!("\n{TIME}hall  answer 1: yes"));
        // A later dialogue begins to count anew.
        let mut later = delta(1, 0, "hello");
        later.session_id = 2;
        let later = screen.show(&message("door", later));
        assert_eq!(later, format!("\n{TIME}door  answer 1: hello"));
    }

    #[test]
    fn without_a_terminal_every_message_is_a_line() {
        let mut screen = Screen::new(false);
        let lines = [
            screen.show(&message("door", delta(1, 0, "A"))),
            screen.show(&message(
                "door",
                Reset {
                    session_id: 1,
                    stream_time_ns: 0,
                },
            )),
        ];
        assert_eq!(
            lines,
            [
                format!("{TIME}door  words 1.0: A\n"),
                format!("{TIME}door  the dialogue begins anew\n")
            ]
        );
    }
}

//! Keywords that are one field of the model: one line binds both, for reading and for writing.

use std::time::Duration;

use crate::lower::Context;
use crate::model::{Fifo, Script, ScriptUser};
use crate::print::{Seconds, Writer, quoted};
use crate::tree::Statement;

/// A field that one keyword sets.
pub(crate) trait Setting: PartialEq + Sized {
    /// The value of a statement; `None`: it cannot be used, which has been reported.
    fn read(cx: &mut Context, statement: &Statement) -> Option<Self>;

    /// Writes the line that reads as this value.
    fn write(&self, name: &str, out: &mut Writer);

    /// Something has been set, for keywords whose first occurrence stays.
    fn is_set(&self) -> bool {
        false
    }
}

/// Fields with their keywords.
pub(crate) trait Settings {
    /// Takes over a statement; false if its keyword is bound to no field.
    fn set(&mut self, cx: &mut Context, statement: &Statement) -> bool;

    /// Writes every field that differs from the default.
    fn write(&self, default: &Self, out: &mut Writer);
}

macro_rules! settings {
    ($type:ty { $($name:literal => $($field:ident).+,)+ }) => {
        impl $crate::settings::Settings for $type {
            fn set(&mut self, cx: &mut $crate::lower::Context, statement: &$crate::tree::Statement) -> bool {
                match statement.spec.canonical() {
                    $($name => cx.set(statement, &mut self.$($field).+),)+
                    _ => return false,
                }
                true
            }

            fn write(&self, default: &Self, out: &mut $crate::print::Writer) {
                $(if self.$($field).+ != default.$($field).+ {
                    $crate::settings::Setting::write(&self.$($field).+, $name, out);
                })+
            }
        }
    };
}
pub(crate) use settings;

impl Context<'_> {
    pub(crate) fn set<T: Setting>(&mut self, statement: &Statement, slot: &mut T) {
        if statement.spec.first_wins && slot.is_set() {
            self.given_before(statement);
        } else if let Some(value) = T::read(self, statement) {
            *slot = value;
        }
    }
}

impl Setting for bool {
    fn read(cx: &mut Context, statement: &Statement) -> Option<Self> {
        if statement.spec.args.is_empty() {
            return Some(true);
        }
        cx.bool_arg(statement)
    }

    fn write(&self, name: &str, out: &mut Writer) {
        out.line(if *self {
            name.to_owned()
        } else {
            format!("{name} false")
        });
    }
}

macro_rules! numbers {
    ($($type:ty)+) => {
        $(impl Setting for $type {
            fn read(cx: &mut Context, statement: &Statement) -> Option<Self> {
                cx.number(statement).and_then(|value| Self::try_from(value).ok())
            }

            fn write(&self, name: &str, out: &mut Writer) {
                out.line(format!("{name} {self}"));
            }
        })+
    };
}

numbers!(u8 u16 u32 i8 i16 i32);

impl Setting for Duration {
    fn read(cx: &mut Context, statement: &Statement) -> Option<Self> {
        cx.duration(statement)
    }

    fn write(&self, name: &str, out: &mut Writer) {
        out.line(format!("{name} {}", Seconds(*self)));
    }
}

impl Setting for String {
    fn read(cx: &mut Context, statement: &Statement) -> Option<Self> {
        cx.text(statement)
    }

    fn write(&self, name: &str, out: &mut Writer) {
        out.line(format!("{name} {}", quoted(self)));
    }
}

impl<T: Setting> Setting for Option<T> {
    fn read(cx: &mut Context, statement: &Statement) -> Option<Self> {
        T::read(cx, statement).map(Some)
    }

    fn write(&self, name: &str, out: &mut Writer) {
        if let Some(value) = self {
            value.write(name, out);
        }
    }

    fn is_set(&self) -> bool {
        self.is_some()
    }
}

impl Setting for Script {
    fn read(cx: &mut Context, statement: &Statement) -> Option<Self> {
        cx.script_arg(statement)
    }

    fn write(&self, name: &str, out: &mut Writer) {
        out.script(name, self);
    }
}

impl Setting for ScriptUser {
    fn read(_: &mut Context, statement: &Statement) -> Option<Self> {
        user(&statement.args)
    }

    fn write(&self, name: &str, out: &mut Writer) {
        out.line(format!("{name} {}", user_words(self)));
    }
}

impl Setting for Fifo {
    fn read(_: &mut Context, statement: &Statement) -> Option<Self> {
        let (path, rest) = statement.args.split_first()?;
        Some(Self {
            path: path.text.to_string(),
            user: user(rest),
        })
    }

    fn write(&self, name: &str, out: &mut Writer) {
        let user = self
            .user
            .as_ref()
            .map(|user| format!(" {}", user_words(user)))
            .unwrap_or_default();
        out.line(format!("{name} {}{user}", quoted(&self.path)));
    }
}

/// Numbers of processors.
impl Setting for Vec<u32> {
    fn read(cx: &mut Context, statement: &Statement) -> Option<Self> {
        let name = statement.keyword.text;
        statement
            .args
            .iter()
            .map(|word| {
                cx.uint(name, word, 0..=MAX_CPU)
                    .and_then(|cpu| u32::try_from(cpu).ok())
            })
            .collect()
    }

    fn write(&self, name: &str, out: &mut Writer) {
        let cpus: Vec<String> = self.iter().map(u32::to_string).collect();
        out.line(format!("{name} {}", cpus.join(" ")));
    }
}

pub(crate) fn user(words: &[crate::lex::Word]) -> Option<ScriptUser> {
    Some(ScriptUser {
        name: words.first()?.text.to_string(),
        group: words.get(1).map(|word| word.text.to_string()),
    })
}

pub(crate) fn user_words(user: &ScriptUser) -> String {
    match &user.group {
        Some(group) => format!("{} {}", quoted(&user.name), quoted(group)),
        None => quoted(&user.name),
    }
}

/// Largest number of a processor; how many there are is not this crate's to say.
const MAX_CPU: u64 = 4095;

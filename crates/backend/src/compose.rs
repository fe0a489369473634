//! `--net=`: which backends work together.

use crate::{Error, Registration, Role, registry};

/// At most one link and at most one shunt.
#[derive(Clone, Copy, Debug, Default)]
pub struct Composition {
    /// Carries the stack's frames.
    pub link: Option<&'static Registration>,
    /// Connects sockets on the host.
    pub shunt: Option<&'static Registration>,
}

impl Composition {
    /// Reads the value of `--net=`: backend names separated by commas, in any order, or `none`.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::Conflict`] or [`Error::None`], each naming the word at fault.
    pub fn parse(spec: &str) -> Result<Self, Error> {
        Self::from_registered(spec, &registry::all())
    }

    fn from_registered(spec: &str, registered: &[&'static Registration]) -> Result<Self, Error> {
        let mut composition = Self::default();
        if spec == "none" {
            return Ok(composition);
        }
        for name in spec.split(',').map(str::trim) {
            if name == "none" {
                return Err(Error::None { spec: spec.to_owned() });
            }
            let found = registered.iter().find(|r| r.name == name).ok_or_else(|| Error::Unknown {
                spec: spec.to_owned(),
                name: name.to_owned(),
                registered: listed(registered),
            })?;
            let slot = match found.role {
                Role::Link => &mut composition.link,
                Role::Shunt => &mut composition.shunt,
            };
            if let Some(first) = slot {
                return Err(Error::Conflict {
                    spec: spec.to_owned(),
                    role: found.role,
                    first: first.name,
                    second: found.name,
                });
            }
            *slot = Some(found);
        }
        Ok(composition)
    }
}

fn listed(registered: &[&Registration]) -> String {
    if registered.is_empty() {
        return "none".to_owned();
    }
    registered.iter().map(|r| r.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &crate::Settings) -> Result<Box<dyn crate::Backend>, Error> {
        Err(Error::NotALink { name: "test" })
    }

    static TIN: Registration =
        Registration { name: "tin", role: Role::Link, auto: None, summary: "", build: nothing };
    static COPPER: Registration =
        Registration { name: "copper", role: Role::Link, auto: None, summary: "", build: nothing };
    static SHORTCUT: Registration =
        Registration { name: "shortcut", role: Role::Shunt, auto: None, summary: "", build: nothing };

    fn parse(spec: &str) -> Result<(Option<&str>, Option<&str>), String> {
        Composition::from_registered(spec, &[&COPPER, &SHORTCUT, &TIN])
            .map(|c| (c.link.map(|r| r.name), c.shunt.map(|r| r.name)))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn one_of_each_in_any_order() {
        assert_eq!(parse("tin,shortcut"), Ok((Some("tin"), Some("shortcut"))));
        assert_eq!(parse("shortcut, tin"), Ok((Some("tin"), Some("shortcut"))));
        assert_eq!(parse("shortcut"), Ok((None, Some("shortcut"))));
        assert_eq!(parse("none"), Ok((None, None)));
    }

    #[test]
    fn errors_name_what_is_registered_and_what_clashes() {
        assert_eq!(
            parse("tin,glass").unwrap_err(),
            "--net=tin,glass: there is no backend `glass`; this program has copper, shortcut, tin"
        );
        assert_eq!(
            parse("tin,copper").unwrap_err(),
            "--net=tin,copper: `copper` is a second link, after `tin`; name at most one link and one shunt"
        );
        assert_eq!(parse("tin,none").unwrap_err(), "--net=tin,none: `none` stands alone");
        assert!(parse("").unwrap_err().contains("no backend ``"));
    }
}

//! The one macro that gives an enum libibverbs' numeric values, and conversions in both directions.

/// Defines a field-less enum with fixed numeric values, `from_raw` and `raw`.
///
/// `from_raw` refuses numbers that name no variant, so a value from C or from a wire is parsed once, at the
/// border, and is a plain enum from there on.
macro_rules! raw_enum {
    (
        $(#[$meta:meta])*
        $repr:ident pub enum $name:ident {
            $( $(#[$vmeta:meta])* $variant:ident = $value:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr($repr)]
        pub enum $name {
            $( $(#[$vmeta])* $variant = $value, )+
        }

        impl $name {
            /// Every variant, in ascending numeric order.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )+ ];

            /// The variant with this libibverbs value, or `None` if no variant has it.
            #[inline]
            pub const fn from_raw(raw: u32) -> Option<Self> {
                match raw {
                    $( $value => Some(Self::$variant), )+
                    _ => None,
                }
            }

            /// The libibverbs value of this variant.
            #[inline]
            pub const fn raw(self) -> u32 {
                self as u32
            }
        }
    };
}

pub(crate) use raw_enum;

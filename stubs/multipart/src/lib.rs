//! Stands in for multipart 0.18 below rouille, which reads forms with it. Agent-Net reads no forms. The crate itself is
//! abandoned, and brings abandoned crates that a future Rust rejects. What rouille 3.6.2 names is here, without a parser:
//! no value of a field can exist, so a program that wants one does not get past reading.

#![forbid(unsafe_code)]

/// What rouille imports: `rouille::input::multipart` reexports the two types of a field.
pub mod server {
    use std::convert::Infallible;
    use std::io::{Error, ErrorKind};
    use std::marker::PhantomData;

    /// A form in a request's body.
    #[derive(Debug)]
    pub struct Multipart<R>(PhantomData<R>);

    impl<R> Multipart<R> {
        /// Drops both: nothing is read.
        pub fn with_body<B: Into<String>>(_body: R, _boundary: B) -> Self {
            Self(PhantomData)
        }

        /// The next field. Errors: always `Unsupported`.
        pub fn read_entry(&mut self) -> Result<Option<MultipartField<&mut Self>>, Error> {
            Err(Error::from(ErrorKind::Unsupported))
        }
    }

    /// A field of a form: there is none.
    #[derive(Debug)]
    pub struct MultipartField<M>(PhantomData<M>, Infallible);

    /// The content of a field: there is none.
    #[derive(Debug)]
    pub struct MultipartData<M>(PhantomData<M>, Infallible);
}

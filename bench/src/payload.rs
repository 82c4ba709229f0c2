//! The data of every notification: about 230 bytes with a number of fixed width, so that a request is
//! made by overwriting eight digits, and that a subscriber can tell whether a byte was altered.

const BEFORE: &str = r#"{"n":""#;
const DIGITS: usize = 8;
const AFTER: &str = concat!(
    r#"","title":"Your order has been shipped","body":"Parcel 2 of 3 left the warehouse this morning "#,
    r#"and will be with you on Thursday between 9 and 12 o'clock, cash please.","link":"/orders/20391/parcels/2","#,
    r#""amount":1.50}"#
);

/// The data of notification `number`.
pub(crate) fn data(number: u64) -> String {
    format!("{BEFORE}{number:0DIGITS$}{AFTER}")
}

/// The number in received data; `None` unless every byte is as it was sent.
pub(crate) fn number_of(data: &[u8]) -> Option<u64> {
    let (before, rest) = data.split_at_checked(BEFORE.len())?;
    let (digits, after) = rest.split_at_checked(DIGITS)?;
    if before != BEFORE.as_bytes() || after != AFTER.as_bytes() {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
    })
}

/// Writes `number` into the data that ends `tail` bytes before the end of `request`.
pub(crate) fn renumber(request: &mut [u8], tail: usize, mut number: u64) {
    let end = request.len() - tail - AFTER.len();
    for digit in request[end - DIGITS..end].iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_back() {
        let mut bytes = format!("{}xy", data(0)).into_bytes();
        renumber(&mut bytes, 2, 12_345_678);
        assert_eq!(bytes, format!("{}xy", data(12_345_678)).as_bytes());
        assert_eq!(number_of(&bytes[..bytes.len() - 2]), Some(12_345_678));
    }

    #[test]
    fn altered_data_has_no_number() {
        assert_eq!(number_of(data(5).replace("1.50", "1.5 ").as_bytes()), None);
        assert_eq!(number_of(data(5).replace("1.50", "1.5").as_bytes()), None);
        assert_eq!(number_of(b"{}"), None);
    }

    #[test]
    fn data_has_the_size_that_is_quoted_with_the_figures() {
        assert!((220..=240).contains(&data(0).len()), "{}", data(0).len());
    }
}

//! NAL units of H.264 and H.265, as far as both have in common.

/// How the NAL units of a buffer are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `stream-format=byte-stream`
    StartCodes,
    /// `avc`, `avc3`, `hvc1`, `hev1`: each with its length in so many bytes, 1 to 4.
    Lengths(usize),
}

impl Framing {
    pub fn write<'a>(self, nals: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut data = Vec::new();
        for nal in nals {
            match self {
                Self::StartCodes => data.extend([0, 0, 0, 1]),
                Self::Lengths(size) => {
                    let length = (nal.len() as u64).to_be_bytes();
                    data.extend(&length[length.len() - size.clamp(1, 4)..]);
                }
            }
            data.extend(nal);
        }
        data
    }
}

/// The NAL units of a buffer, without start codes and lengths; lazily, since most questions are answered by the first ones. Ends at
/// the first that is cut short.
pub fn nals(framing: Framing, data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = match framing {
        Framing::StartCodes => after_start_code(data),
        Framing::Lengths(_) => Some(data),
    };
    std::iter::from_fn(move || {
        let data = rest?;
        let (nal, next) = match framing {
            Framing::StartCodes => split_at_start_code(data),
            Framing::Lengths(size) => split_by_length(data, size)?,
        };
        rest = next;
        Some(nal)
    })
    .filter(|nal| !nal.is_empty())
}

/// The NAL units before the first slice that are parameter sets.
pub fn leading(
    framing: Framing,
    data: &[u8],
    is_slice: impl Fn(&[u8]) -> bool,
    is_parameter_set: impl Fn(&[u8]) -> bool,
) -> Vec<&[u8]> {
    nals(framing, data)
        .take_while(|nal| !is_slice(nal))
        .filter(|nal| is_parameter_set(nal))
        .collect()
}

fn start_code(data: &[u8]) -> Option<usize> {
    data.windows(3).position(|window| window == [0, 0, 1])
}

fn after_start_code(data: &[u8]) -> Option<&[u8]> {
    start_code(data).map(|at| &data[at + 3..])
}

fn split_at_start_code(data: &[u8]) -> (&[u8], Option<&[u8]>) {
    match start_code(data) {
        Some(at) => {
            // A longer start code, or trailing zeros: a NAL unit never ends in a zero byte.
            let end = data[..at]
                .iter()
                .rposition(|&byte| byte != 0)
                .map_or(0, |last| last + 1);
            (&data[..end], Some(&data[at + 3..]))
        }
        None => (data, None),
    }
}

fn split_by_length(data: &[u8], size: usize) -> Option<(&[u8], Option<&[u8]>)> {
    let (length, rest) = data.split_at_checked(size.clamp(1, 4))?;
    let length = length
        .iter()
        .fold(0usize, |length, &byte| length << 8 | usize::from(byte));
    let (nal, rest) = rest.split_at_checked(length)?;
    Some((nal, (!rest.is_empty()).then_some(rest)))
}

/// The payload of a NAL unit without its emulation prevention bytes.
pub fn unescape(nal: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        payload.push(byte);
    }
    payload
}

/// `entries` indices spread evenly over `0..len`, first and last included: `numpy.linspace(0, len - 1, entries, dtype=int)`,
/// whose step is computed once in f64 and whose last value is set. Indices repeat when `entries > len`. Empty when `len` is 0.
pub fn uniform(len: usize, entries: usize) -> Vec<usize> {
    let Some(last) = len.checked_sub(1) else {
        return Vec::new();
    };
    if entries < 2 {
        return vec![0; entries];
    }
    let step = last as f64 / (entries - 1) as f64;
    (0..entries - 1)
        .map(|i| (i as f64 * step) as usize)
        .chain([last])
        .collect()
}

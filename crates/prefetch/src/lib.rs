//! Asks the processor to fetch what will be read soon.
//!
//! The only crate with `unsafe`: the standard library has no safe way to this instruction (see
//! `docs/decisions/prefetch.md`). On other processors than x86-64 it does nothing.

/// Bytes that a processor fetches at once.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Has `what` fetched into the nearest cache, without waiting for it. A hint: it changes nothing, and cannot fail.
#[inline(always)]
pub fn prefetch<T: ?Sized>(what: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for offset in (0..size_of_val(what)).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = std::ptr::from_ref(what).cast::<i8>().wrapping_add(offset);
        // SAFETY: the instruction reads and writes nothing that the program can see and faults at no address, and SSE, which
        // has it, is part of every x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = what;
}

#[cfg(test)]
mod tests {
    use super::prefetch;

    #[test]
    fn anything_may_be_fetched_and_stays_as_it_is() {
        let many = vec![7u8; 1000];
        prefetch(&many[..]);
        prefetch(&many[999]);
        prefetch::<[u8]>(&[]);
        prefetch(&());
        prefetch("a text");
        assert_eq!(many, [7; 1000]);
    }
}

//! Giving back the memory that a start has used and a long life does not need.

use std::ops::Range;
use std::ptr;

use nix::libc;

/// Lets go of the pages of program text that are mapped now (madvise(2) `MADV_DONTNEED`): they stay in the
/// page cache, and what is used again is mapped again. A start maps many that a long life does not need.
pub fn forget_text_pages() {
    for mapping in mappings(|line| line.contains(" r-xp ") && line.contains('/')) {
        let address = ptr::with_exposed_provenance_mut::<libc::c_void>(mapping.start);
        // SAFETY: the range is a mapping of a file that nobody has written to (it is executable and
        // not writable), so that every page of it can be mapped again with the same contents.
        unsafe { libc::madvise(address, mapping.len(), libc::MADV_DONTNEED) };
    }
}

/// Gives back what a start has used and a long life does not need: the stack that is not in use (madvise(2)
/// `MADV_DONTNEED`), and then free pages of the heap (malloc_trim(3)), which the first of these uses too.
/// The calling process must have one thread.
pub fn give_back_memory() {
    forget_unused_stack();
    give_back_heap();
}

/// Gives back free pages of the heap (malloc_trim(3)), after work that needed much more of it than what it leaves.
pub fn give_back_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes an integer, and only lets go of pages that no allocation is in.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// How much free memory lies at the end of an arena before it is given back, and from what size on an allocation has pages
/// of its own.
#[cfg(target_env = "gnu")]
const FREE_END: libc::c_int = 2 << 20;
#[cfg(target_env = "gnu")]
const OWN_PAGES: libc::c_int = 4 << 20;

/// Keeps the heap from holding on to what one large request has used (mallopt(3)): by itself the allocator raises both
/// bounds with the largest piece that was ever freed, up to 64 and 32 MiB, and malloc_trim(3) does not reach the ends of arenas.
pub fn bound_free_heap() {
    #[cfg(target_env = "gnu")]
    for (bound, bytes) in [
        (libc::M_TRIM_THRESHOLD, FREE_END),
        (libc::M_MMAP_THRESHOLD, OWN_PAGES),
    ] {
        // SAFETY: it takes integers, and sets a bound that later allocations go by.
        unsafe { libc::mallopt(bound, bytes) };
    }
}

fn forget_unused_stack() {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    let page = page.ok().flatten();
    let Some(page) = page.and_then(|page| usize::try_from(page).ok()) else {
        return;
    };
    for stack in mappings(|line| line.ends_with("[stack]")) {
        forget_below_here(&stack, page);
    }
}

/// Not inlined, so that its frame is the small one that [`STACK_IN_USE`] speaks of.
#[inline(never)]
fn forget_below_here(stack: &Range<usize>, page: usize) {
    let here = 0_u8;
    let used = (&raw const here).addr();
    let end = used.saturating_sub(STACK_IN_USE) / page * page;
    if stack.contains(&end) {
        let address = ptr::with_exposed_provenance_mut::<libc::c_void>(stack.start);
        // SAFETY: the range lies within the mapping of this thread's stack and wholly below every frame of
        // it; such pages hold nothing, and are zeroes when the stack grows into them again.
        unsafe { libc::madvise(address, end - stack.start, libc::MADV_DONTNEED) };
    }
}

/// The addresses of this process's mappings whose line in proc_pid_maps(5) is wanted.
fn mappings(is_wanted: impl Fn(&str) -> bool) -> Vec<Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let number = |text: &str| usize::from_str_radix(text, 16).ok();
    let range = |line: &str| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        Some(number(start)?..number(end)?)
    };
    maps.lines()
        .filter(|line| is_wanted(line))
        .filter_map(range)
        .collect()
}

/// How much of the stack below a variable of [`forget_below_here`] is left alone: the rest of its frame, and the
/// call into the C library. Far more than they need.
const STACK_IN_USE: usize = 1024;

//! Which major of PostgreSQL a shared object was built for, from its magic block (`Pg_magic_func`, `fmgr.h`).
//!
//! The function only returns the address of the block, whose second `int` is `PG_VERSION_NUM / 100`. Nothing is run: the one
//! instruction that makes the address is read. What looks otherwise is no error: then only the server can tell, when it loads it.

use object::{Architecture, Object as _, ObjectSection as _, ObjectSymbol as _};

/// Bytes of the function that are looked at: both compilers' shortest and unoptimised forms fit.
const FUNCTION: u64 = 64;
/// Majors that there are or may come to be.
const MAJORS: std::ops::RangeInclusive<u32> = 10..=99;

/// The major of a shared object; `None`: it has no magic block, or not one that can be read here.
pub fn major(bytes: &[u8]) -> Option<u32> {
    let file = object::File::parse(bytes).ok()?;
    let function = file
        .dynamic_symbols()
        .chain(file.symbols())
        .find(|symbol| symbol.is_definition() && symbol.name() == Ok("Pg_magic_func"))?;
    let at = function.address();
    let code = data(&file, at, FUNCTION)?;
    let block = match file.architecture() {
        Architecture::X86_64 => x86_64(code, at)?,
        Architecture::Aarch64 => aarch64(code, at)?,
        _ => return None,
    };
    let head: [u8; 8] = data(&file, block, 8)?.try_into().ok()?;
    let [_, _, _, _, a, b, c, d] = head;
    let version = u32::from_le_bytes([a, b, c, d]);
    let major = version / 100;
    (version % 100 == 0 && MAJORS.contains(&major)).then_some(major)
}

fn data<'a>(file: &object::File<'a>, address: u64, least: u64) -> Option<&'a [u8]> {
    let section = file.sections().find(|section| {
        let from = section.address();
        address >= from && address < from.saturating_add(section.size())
    })?;
    let held = section.data().ok()?;
    let from = usize::try_from(address.checked_sub(section.address())?).ok()?;
    let most = usize::try_from(least).ok()?;
    let rest = held.get(from..)?;
    rest.get(..most.min(rest.len()))
}

/// `lea rax, [rip + offset]`.
fn x86_64(code: &[u8], at: u64) -> Option<u64> {
    let place = code.windows(3).position(|bytes| bytes == [0x48, 0x8d, 0x05])?;
    let offset: [u8; 4] = code.get(place + 3..place + 7)?.try_into().ok()?;
    let next = at.checked_add(u64::try_from(place + 7).ok()?)?;
    next.checked_add_signed(i64::from(i32::from_le_bytes(offset)))
}

/// `adrp x0, page` and `add x0, x0, #offset`.
fn aarch64(code: &[u8], at: u64) -> Option<u64> {
    let words: Vec<u32> = code
        .chunks_exact(4)
        .filter_map(|word| word.try_into().ok().map(u32::from_le_bytes))
        .collect();
    for (index, pair) in words.windows(2).enumerate() {
        let [adrp, add] = pair else { continue };
        let is_adrp = adrp & 0x9f00_001f == 0x9000_0000;
        let is_add = add & 0xffc0_03ff == 0x9100_0000;
        if is_adrp && is_add {
            let raw = ((adrp >> 5 & 0x7_ffff) << 2) | (adrp >> 29 & 3);
            // 21 bits with a sign.
            let pages = i64::from(raw) - if raw & 0x10_0000 != 0 { 0x20_0000 } else { 0 };
            let here = at.checked_add(4 * u64::try_from(index).ok()?)? & !0xfff;
            let page = here.checked_add_signed(pages << 12)?;
            return page.checked_add(u64::from(add >> 10 & 0xfff));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_read_from_the_one_instruction() {
        // push rbp; mov rbp, rsp; lea rax, [rip + 0x10]
        let code = [0x55, 0x48, 0x89, 0xe5, 0x48, 0x8d, 0x05, 0x10, 0, 0, 0, 0x5d, 0xc3];
        assert_eq!(x86_64(&code, 0x1000), Some(0x1000 + 11 + 0x10));
        // adrp x0, +1 page; add x0, x0, #0x120; ret
        let words: [u32; 3] = [0xb000_0000, 0x9104_8000, 0xd65f_03c0];
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(aarch64(&code, 0x5678), Some(0x6120));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at: u64) {
            let _ = major(&bytes);
            let _ = x86_64(&bytes, at);
            let _ = aarch64(&bytes, at);
            let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0".to_vec();
            elf.extend(&bytes);
            let _ = major(&elf);
        }
    }
}

//! The sample scan of the demo: a small volume that every viewer of medical images opens.

/// Voxels along each edge: quick to send, large enough to look at.
const EDGE: usize = 48;

/// Edge of a voxel in millimetres, coarser than a dental CBCT's.
const SPACING_MM: f32 = 2.0;

/// Grey values on the Hounsfield scale.
const AIR: i16 = -1000;
const TISSUE: i16 = 40;
const BONE: i16 = 1400;

/// A CBCT-like volume of a jaw in NRRD (16-bit, little-endian, raw), with a horseshoe of bone in
/// soft tissue in air. Source of the format: teem.sourceforge.net/nrrd/format.html.
pub(super) fn volume() -> Vec<u8> {
    let header = format!(
        "NRRD0004\ntype: int16\ndimension: 3\nspace: left-posterior-superior\n\
         sizes: {EDGE} {EDGE} {EDGE}\n\
         space directions: ({SPACING_MM},0,0) (0,{SPACING_MM},0) (0,0,{SPACING_MM})\n\
         kinds: domain domain domain\nendian: little\nencoding: raw\nspace origin: (0,0,0)\n\n"
    );
    let mut bytes = header.into_bytes();
    for z in 0..EDGE {
        for y in 0..EDGE {
            for x in 0..EDGE {
                bytes.extend(voxel(x, y, z).to_le_bytes());
            }
        }
    }
    bytes
}

fn voxel(x: usize, y: usize, z: usize) -> i16 {
    let centred = |place: usize| (place as f32 / (EDGE - 1) as f32) * 2.0 - 1.0;
    let (x, y, z) = (centred(x), centred(y), centred(z));
    let from_axis = x.hypot(y * 0.8);
    let is_arch = (0.55..0.72).contains(&from_axis) && y < 0.35 && z.abs() < 0.25;
    match () {
        () if is_arch => BONE,
        () if from_axis.hypot(z) < 0.9 => TISSUE,
        () => AIR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_volume_holds_as_many_voxels_as_its_header_says() {
        let bytes = volume();
        let end = bytes.windows(2).position(|pair| pair == b"\n\n").expect("an empty line") + 2;
        assert!(bytes.starts_with(b"NRRD0004\n"));
        assert_eq!(bytes.len() - end, EDGE * EDGE * EDGE * 2);
        let voxels = bytes[end..].chunks(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
        for value in [AIR, TISSUE, BONE] {
            assert!(voxels.clone().filter(|voxel| *voxel == value).count() > 500, "{value}");
        }
    }
}

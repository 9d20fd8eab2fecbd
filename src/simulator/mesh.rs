//! Output files: one closed ellipsoid for each structure, in the requested format, with sizes that
//! vary by output.
//!
//! A file that must be larger repeats its triangles. Called when an output is downloaded or written
//! to its `uploadUrl`. Invariant: the same job and output always give the same bytes.
//!
//! `.stl` (binary), `.obj` and `.ply` (ASCII) are valid meshes. `.drc` is the magic `DRACO`
//! followed by zeros, any other extension the line `engine-simulator <structures>` followed by
//! zeros: these only have the right length.

use std::{f32::consts::PI, fmt::Write};

use super::content::FileContent;
use super::job::{AcceptedJob, Output};

/// Rings and segments of the smallest mesh: 112 triangles, 6 kB as STL.
const MIN_STEPS: u32 = 8;
/// Number of sizes; the largest has 1984 triangles, 99 kB as STL.
const SIZES: u32 = 25;
/// Step in size of a file that is not a mesh.
const PADDING: [u8; 1024] = [0; 1024];
/// Distance between the centres of two structures in one file, in millimetres.
const SPACING: f32 = 40.0;
/// The bytes of an available output.
pub(super) fn content(job: &AcceptedJob, output: &Output) -> FileContent {
    let (size, mesh) = (job.output_size, Mesh::of(output));
    match output.extension.as_str() {
        ".stl" => stl(&mesh, size),
        ".obj" => obj(&mesh, size),
        ".ply" => ply(&mesh, size),
        ".drc" => padded("DRACO".into(), output, size),
        _ => padded(format!("engine-simulator {}\n", output.structures.join(" ")), output, size),
    }
}

fn padded(text: String, output: &Output, size: u64) -> FileContent {
    let times = times(&PADDING, size) + u64::from(variation(output));
    FileContent::repeating(text, &PADDING, times)
}

/// How often to repeat a unit for a file of at least `size` bytes.
fn times(unit: &[u8], size: u64) -> u64 {
    size.div_ceil(unit.len() as u64).max(1)
}

/// Makes the sizes of outputs differ.
fn variation(output: &Output) -> u32 {
    let names = output.structures.iter().chain([&output.kind]);
    let sum: u32 = names.flat_map(|name| name.bytes()).map(u32::from).sum();
    (sum + output.index as u32) % SIZES
}

struct Mesh {
    vertices: Vec<[f32; 3]>,
    triangles: Vec<[u32; 3]>,
}

impl Mesh {
    /// An ellipsoid for each structure.
    fn of(output: &Output) -> Self {
        let names = match output.structures.as_slice() {
            [] => std::slice::from_ref(&output.kind),
            names => names,
        };
        let steps = MIN_STEPS + variation(output);
        let mut mesh = Self { vertices: Vec::new(), triangles: Vec::new() };
        for (position, name) in names.iter().enumerate() {
            mesh.add_ellipsoid(name, position as f32 * SPACING, steps);
        }
        mesh
    }

    /// Adds two poles, and rings of vertices between them.
    fn add_ellipsoid(&mut self, name: &str, middle: f32, steps: u32) {
        let sum: u32 = name.bytes().map(u32::from).sum();
        let radii = [5 + sum % 11, 5 + sum % 7, 5 + sum % 13].map(|radius| radius as f32);
        let point = |latitude: f32, longitude: f32| {
            let (x, y) = (latitude.sin() * longitude.cos(), latitude.sin() * longitude.sin());
            [middle + radii[0] * x, radii[1] * y, radii[2] * latitude.cos()]
        };
        let top = self.vertices.len() as u32;
        self.vertices.push(point(0.0, 0.0));
        for ring in 1..steps {
            for segment in 0..steps {
                let (latitude, longitude) = (ring as f32, 2.0 * segment as f32);
                let angle = PI / steps as f32;
                self.vertices.push(point(latitude * angle, longitude * angle));
            }
        }
        self.vertices.push(point(PI, 0.0));
        let bottom = self.vertices.len() as u32 - 1;
        let vertex = |ring: u32, segment: u32| top + 1 + (ring - 1) * steps + segment % steps;
        for segment in 0..steps {
            self.triangles.push([top, vertex(1, segment), vertex(1, segment + 1)]);
            for ring in 1..steps - 1 {
                let (here, below) = (vertex(ring, segment), vertex(ring + 1, segment));
                let (beside, across) = (vertex(ring, segment + 1), vertex(ring + 1, segment + 1));
                self.triangles.extend([[here, below, across], [here, across, beside]]);
            }
            self.triangles.push([
                vertex(steps - 1, segment),
                bottom,
                vertex(steps - 1, segment + 1),
            ]);
        }
    }

    fn corners(&self, triangle: &[u32; 3]) -> [[f32; 3]; 3] {
        triangle.map(|vertex| self.vertices[vertex as usize])
    }
}

/// Binary STL: 84 bytes, and 50 for each triangle.
fn stl(mesh: &Mesh, size: u64) -> FileContent {
    let mut unit = Vec::new();
    for triangle in &mesh.triangles {
        let corners = mesh.corners(triangle);
        let numbers = normal(corners).into_iter().chain(corners.into_iter().flatten());
        numbers.for_each(|number| unit.extend(number.to_le_bytes()));
        unit.extend([0, 0]);
    }
    let times = times(&unit, size);
    let triangles = (mesh.triangles.len() as u64 * times) as u32;
    let mut head = format!("{:<80}", "engine-simulator").into_bytes();
    head.extend(triangles.to_le_bytes());
    FileContent::repeating(head, &unit, times)
}

fn normal([a, b, c]: [[f32; 3]; 3]) -> [f32; 3] {
    let [u, v] = [b, c].map(|end| [end[0] - a[0], end[1] - a[1], end[2] - a[2]]);
    let [x, y, z] =
        [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    let length = (x * x + y * y + z * z).sqrt().max(f32::MIN_POSITIVE);
    [x / length, y / length, z / length]
}

fn obj(mesh: &Mesh, size: u64) -> FileContent {
    let (mut head, mut unit) = (String::from("# engine-simulator\n"), String::new());
    for [x, y, z] in &mesh.vertices {
        writeln!(head, "v {x:.4} {y:.4} {z:.4}").expect("memory takes every byte");
    }
    for [a, b, c] in &mesh.triangles {
        writeln!(unit, "f {} {} {}", a + 1, b + 1, c + 1).expect("memory takes every byte");
    }
    FileContent::repeating(head, unit.as_bytes(), times(unit.as_bytes(), size))
}

fn ply(mesh: &Mesh, size: u64) -> FileContent {
    let mut unit = String::new();
    for [a, b, c] in &mesh.triangles {
        writeln!(unit, "3 {a} {b} {c}").expect("memory takes every byte");
    }
    let times = times(unit.as_bytes(), size);
    let mut head = format!(
        "ply\nformat ascii 1.0\ncomment engine-simulator\n\
         element vertex {}\nproperty float x\nproperty float y\nproperty float z\n\
         element face {}\nproperty list uchar int vertex_indices\nend_header\n",
        mesh.vertices.len(),
        mesh.triangles.len() as u64 * times,
    );
    for [x, y, z] in &mesh.vertices {
        writeln!(head, "{x:.4} {y:.4} {z:.4}").expect("memory takes every byte");
    }
    FileContent::repeating(head, unit.as_bytes(), times)
}

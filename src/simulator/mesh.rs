//! Real output files: one closed ellipsoid for each structure, in the format that was asked for.
//! Called when an output is downloaded or written away.
//! Invariant: the same job and output always give the same bytes.
//!
//! `.stl` (binary), `.obj` and `.ply` (ASCII) are valid meshes. `.drc` is the magic `DRACO` followed by zeros,
//! any other extension the line `engine-simulator <structures>` followed by zeros: these only have a length.

use std::{f32::consts::PI, fmt::Write};

use bytes::Bytes;

use super::job::{AcceptedJob, Output};

/// Rings and segments of a mesh nobody asked to be large: 480 triangles, 24 kB as STL.
const COARSE_STEPS: u32 = 16;
/// No format takes fewer bytes for a triangle and its share of the vertices.
const MIN_TRIANGLE_BYTES: usize = 20;
const STL_TRIANGLE_BYTES: usize = 50;
/// Gap between the middles of two structures in one file, in millimetres.
const SPACING: f32 = 40.0;

/// The bytes of an available output.
pub(super) fn file(job: &AcceptedJob, output: &Output) -> Bytes {
    let size = job.output_size;
    match output.extension.as_str() {
        ".stl" => stl(&Mesh::of(output, size / STL_TRIANGLE_BYTES)),
        ".obj" => obj(&Mesh::of(output, size / MIN_TRIANGLE_BYTES)),
        ".ply" => ply(&Mesh::of(output, size / MIN_TRIANGLE_BYTES)),
        ".drc" => padded("DRACO".into(), size),
        _ => padded(format!("engine-simulator {}\n", output.structures.join(" ")), size),
    }
}

fn padded(text: String, size: usize) -> Bytes {
    let mut bytes = text.into_bytes();
    bytes.resize(size.max(bytes.len()), 0);
    bytes.into()
}

struct Mesh {
    vertices: Vec<[f32; 3]>,
    triangles: Vec<[u32; 3]>,
}

impl Mesh {
    /// At least so many triangles, shared by the structures.
    fn of(output: &Output, min_triangles: usize) -> Self {
        let names = match output.structures.as_slice() {
            [] => std::slice::from_ref(&output.kind),
            names => names,
        };
        // An ellipsoid of n steps has 2n(n-1) triangles.
        let share = min_triangles as f64 / names.len() as f64;
        let steps = COARSE_STEPS.max((share / 2.0).sqrt().ceil() as u32 + 1);
        let mut mesh = Self { vertices: Vec::new(), triangles: Vec::new() };
        for (position, name) in names.iter().enumerate() {
            mesh.add_ellipsoid(name, position as f32 * SPACING, steps);
        }
        mesh
    }

    /// Two poles, and rings of vertices between them.
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
fn stl(mesh: &Mesh) -> Bytes {
    let mut bytes = Vec::with_capacity(84 + STL_TRIANGLE_BYTES * mesh.triangles.len());
    bytes.extend_from_slice(b"engine-simulator");
    bytes.resize(80, 0);
    bytes.extend((mesh.triangles.len() as u32).to_le_bytes());
    for triangle in &mesh.triangles {
        let corners = mesh.corners(triangle);
        let numbers = normal(corners).into_iter().chain(corners.into_iter().flatten());
        numbers.for_each(|number| bytes.extend(number.to_le_bytes()));
        bytes.extend([0, 0]);
    }
    bytes.into()
}

fn normal([a, b, c]: [[f32; 3]; 3]) -> [f32; 3] {
    let [u, v] = [b, c].map(|end| [end[0] - a[0], end[1] - a[1], end[2] - a[2]]);
    let [x, y, z] =
        [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    let length = (x * x + y * y + z * z).sqrt().max(f32::MIN_POSITIVE);
    [x / length, y / length, z / length]
}

fn obj(mesh: &Mesh) -> Bytes {
    let mut text = String::from("# engine-simulator\n");
    for [x, y, z] in &mesh.vertices {
        writeln!(text, "v {x:.4} {y:.4} {z:.4}").expect("memory takes every byte");
    }
    for [a, b, c] in &mesh.triangles {
        writeln!(text, "f {} {} {}", a + 1, b + 1, c + 1).expect("memory takes every byte");
    }
    text.into()
}

fn ply(mesh: &Mesh) -> Bytes {
    let mut text = format!(
        "ply\nformat ascii 1.0\ncomment engine-simulator\n\
         element vertex {}\nproperty float x\nproperty float y\nproperty float z\n\
         element face {}\nproperty list uchar int vertex_indices\nend_header\n",
        mesh.vertices.len(),
        mesh.triangles.len(),
    );
    for [x, y, z] in &mesh.vertices {
        writeln!(text, "{x:.4} {y:.4} {z:.4}").expect("memory takes every byte");
    }
    for [a, b, c] in &mesh.triangles {
        writeln!(text, "3 {a} {b} {c}").expect("memory takes every byte");
    }
    text.into()
}

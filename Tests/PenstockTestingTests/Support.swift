// SPDX-License-Identifier: Apache-2.0
import PenstockSystem
import PenstockTesting
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

extension File {
  func read(_ count: Int, at offset: UInt64 = 0) throws(SystemError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xee, count: count)
    var span = bytes.mutableSpan
    var raw = span.mutableBytes
    let done = try read(into: &raw, at: offset)
    return Array(bytes.prefix(done))
  }

  func write(_ bytes: [UInt8], at offset: UInt64 = 0) throws(SystemError) {
    try write(bytes.span.bytes, at: offset)
  }
}

/// Expects a call to fail with one errno.
func expect(
  errno: CInt, _ location: SourceLocation = #_sourceLocation, _ body: () throws -> Void
) {
  let error = #expect(throws: SystemError.self, sourceLocation: location) { try body() }
  #expect(error?.errno == errno, sourceLocation: location)
}

func bytes(_ value: UInt8, _ count: Int) -> [UInt8] { [UInt8](repeating: value, count: count) }

/// The two file systems that must behave alike.
enum Kind: CaseIterable, Sendable { case posix, simulated }

/// Runs `body` with a file system of a kind and an empty directory on it, which is removed
/// afterwards.
func withDirectory(on kind: Kind, _ body: (any FileSystem, String) throws -> Void) throws {
  switch kind {
  case .simulated:
    let fileSystem = SimulatedFileSystem()
    try fileSystem.createDirectory("/base")
    try body(fileSystem, "/base")
  case .posix:
    var template = Array("/tmp/penstock-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw PosixSetupFailed() }
    let path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
    defer { removeTree(path) }
    try body(PosixFileSystem(), path)
  }
}

struct PosixSetupFailed: Error {}

private func removeTree(_ path: String) {
  let fileSystem = PosixFileSystem()
  for name in (try? fileSystem.list(path)) ?? [] {
    let child = "\(path)/\(name)"
    if unlink(child) != 0 { removeTree(child) }
  }
  rmdir(path)
}

// SPDX-License-Identifier: Apache-2.0
import Foundation
import PenstockLog
import PenstockSystem
import PenstockTesting
import Testing

/// A store that version 1 wrote, kept in `Fixtures/version-1`; its README says how it was made.
@Suite struct GoldenStore {
  private static let fixture = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().appendingPathComponent("Fixtures/version-1")

  private static let files = [
    StoreFileName.store, StoreFileName.segment(LSN(1)), StoreFileName.segment(LSN(2)),
    StoreFileName.segment(LSN(5)),
  ]

  /// By LSN: two of the first run, one of no bytes, and three of the second run.
  private static let payloads: [UInt64: [UInt8]] = [
    2: Array("first".utf8), 3: Array("unsynced".utf8), 4: [],
    5: Array("second run".utf8), 6: (0...255).map { UInt8($0) }, 7: Array("last".utf8),
  ]

  /// Writes the store as the fixture was written.
  private static func write(_ disk: SimulatedFileSystem) throws {
    var session = try open(disk, seed: 2024)
    try session.prepare()
    try session.commit(payloads[2] ?? [])
    try session.commit(payloads[3] ?? [], synced: false)
    try session.commit(payloads[4] ?? [])
    try session.log.seal()
    session.log.close()
    session = try open(disk, seed: 2025)
    try session.prepare()
    try session.append(payloads[5] ?? [])
    try session.append(payloads[6] ?? [])
    try session.commit()
    try session.commit(payloads[7] ?? [])
    try session.heartbeat()
    disk.kill()
  }

  /// The bytes that are kept: without the zeros at the end of the newest segment.
  private static func kept(_ disk: SimulatedFileSystem, _ name: String) throws -> [UInt8] {
    var bytes = try #require(disk.contents(of: path(name)))
    if name == files.last { while bytes.last == 0 { bytes.removeLast() } }
    return bytes
  }

  private static func load() throws -> SimulatedFileSystem {
    let disk = SimulatedFileSystem()
    try disk.createDirectory(directory)
    for name in files {
      var bytes = Array(try Data(contentsOf: fixture.appendingPathComponent(name)))
      if name == files.last { bytes += [UInt8](repeating: 0, count: segmentSize - bytes.count) }
      disk.replace(path(name), with: bytes)
    }
    return disk
  }

  @Test func opensAndReplaysItsRecords() throws {
    let session = try open(try Self.load())
    #expect(session.found.payloads == Self.payloads)
    #expect(session.found.lastLSN == 7)
    #expect(session.found.end == .clean)
    #expect(session.recovery.segments == 3)
    #expect(session.recovery.records == 7)
    #expect(session.recovery.unknownFiles == [])
    #expect(session.log.storeFile.createdAt == 1_700_000_000_000)
  }

  /// Says whether the format moved without a new version. With `PENSTOCK_WRITE_FIXTURES=1` in the
  /// environment, writes the fixture anew.
  @Test func thisVersionStillWritesTheSameBytes() throws {
    let disk = SimulatedFileSystem()
    try Self.write(disk)
    let isWriting = ProcessInfo.processInfo.environment["PENSTOCK_WRITE_FIXTURES"] == "1"
    if isWriting {
      try FileManager.default.createDirectory(
        at: Self.fixture, withIntermediateDirectories: true)
    }
    for name in Self.files {
      let url = Self.fixture.appendingPathComponent(name)
      let bytes = try Self.kept(disk, name)
      if isWriting { try Data(bytes).write(to: url) }
      let golden = Array(try Data(contentsOf: url))
      #expect(golden == bytes, "\(name) differs")
    }
  }
}

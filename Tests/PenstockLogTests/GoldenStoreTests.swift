// SPDX-License-Identifier: Apache-2.0
import Foundation
import PenstockLog
import PenstockSystem
import PenstockTesting
import Testing

/// Stores as each version wrote them, kept in `Fixtures`; its README says how they were made.
@Suite struct GoldenStores {
  private static func fixture(_ version: Int) -> URL {
    URL(fileURLWithPath: #filePath)
      .deletingLastPathComponent().appendingPathComponent("Fixtures/version-\(version)")
  }

  private static let newest = StoreFileName.segment(LSN(5))

  private static func files(_ version: Int) -> [String] {
    let common = [
      StoreFileName.store, StoreFileName.segment(LSN(1)), StoreFileName.segment(LSN(2)), newest,
    ]
    return version == 1 ? common : common + [StoreFileName.head]
  }

  /// By LSN: two of the first run, one of no bytes, and three of the second run.
  private static let payloads: [UInt64: [UInt8]] = [
    2: Array("first".utf8), 3: Array("unsynced".utf8), 4: [],
    5: Array("second run".utf8), 6: (0...255).map { UInt8($0) }, 7: Array("last".utf8),
  ]

  /// Writes the store as the fixtures were written.
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
    if name == newest { while bytes.last == 0 { bytes.removeLast() } }
    return bytes
  }

  private static func load(_ version: Int) throws -> SimulatedFileSystem {
    let disk = SimulatedFileSystem()
    try disk.createDirectory(directory)
    for name in files(version) {
      var bytes = Array(try Data(contentsOf: fixture(version).appendingPathComponent(name)))
      if name == newest { bytes += [UInt8](repeating: 0, count: segmentSize - bytes.count) }
      disk.replace(path(name), with: bytes)
    }
    return disk
  }

  @Test(arguments: [1, 2, 3]) func opensAndReplaysItsRecords(_ version: Int) throws {
    let session = try open(try Self.load(version))
    #expect(session.found.payloads == Self.payloads)
    #expect(session.found.lastLSN == 7)
    #expect(session.found.end == .clean)
    #expect(session.recovery.segments == 3)
    #expect(session.recovery.records == 7)
    #expect(session.recovery.unknownFiles == [])
    #expect(session.log.storeFile.version == UInt32(version))
    #expect(session.log.storeFile.createdAt == 1_700_000_000_000)
  }

  /// What is written to an older store is of this version; `STORE` stays, and `HEAD` is not added.
  @Test(arguments: [1, 2, 3]) func goesOn(_ version: Int) throws {
    let disk = try Self.load(version)
    let store = disk.contents(of: path(StoreFileName.store))
    var session = try open(disk)
    try session.prepare()
    let lsn = try session.append(payload(1)).lsn.value
    #expect(lsn == PenstockLogTests.lsn(afterLossAt: 7))
    try session.commit()
    #expect(disk.contents(of: segment(lsn))?[8] == LogFormat.version)
    for isClosed in [false, true] {
      let again = try open(disk.opened())
      #expect(again.found.payloads == Self.payloads.merging([lsn: payload(1)]) { $1 })
      #expect(again.found.end == (isClosed ? .sealed : .clean))
      if !isClosed { try session.log.seal() }
    }
    #expect(disk.contents(of: path(StoreFileName.store)) == store)
    #expect((disk.contents(of: headFile) == nil) == (version == 1))
  }

  /// Later rules hold for the segments that were written by them, in a store of version 1, too.
  @Test func aTruncatedSegmentOfVersion2InAStoreOfVersion1IsRefused() throws {
    let disk = try Self.load(1)
    var session = try open(disk)
    try session.prepare()
    let frame = try session.commit(payload(1))
    disk.kill()
    disk.edit(segment(frame.firstLSN)) { $0.removeLast(LogFormat.sectorSize) }
    #expect(damage(disk).map { path($0.file) } == segment(frame.firstLSN))
  }

  /// A recovery of version 1 cut the file before it wrote the seal.
  @Test func aCutSegmentOfVersion1IsACleanEnd() throws {
    let disk = try Self.load(1)
    let bytes = try #require(disk.contents(of: path(Self.newest)))
    let end = try #require(bytes.lastIndex { $0 != 0 }) + 1
    disk.edit(path(Self.newest)) { $0.removeLast($0.count - roundUp(end, to: 64)) }
    let session = try open(disk)
    #expect(session.found.end == .clean)
    #expect(session.found.payloads == Self.payloads)
    #expect(try reopened(disk).found.end == .sealed)
  }

  /// Says whether the format moved without a new version. With `PENSTOCK_WRITE_FIXTURES=1` in the
  /// environment, writes the fixture anew.
  @Test func thisVersionStillWritesTheSameBytes() throws {
    let version = Int(LogFormat.version)
    let disk = SimulatedFileSystem()
    try Self.write(disk)
    let isWriting = ProcessInfo.processInfo.environment["PENSTOCK_WRITE_FIXTURES"] == "1"
    if isWriting {
      try FileManager.default.createDirectory(
        at: Self.fixture(version), withIntermediateDirectories: true)
    }
    for name in Self.files(version) {
      let url = Self.fixture(version).appendingPathComponent(name)
      let bytes = try Self.kept(disk, name)
      if isWriting { try Data(bytes).write(to: url) }
      let golden = Array(try Data(contentsOf: url))
      #expect(golden == bytes, "\(name) differs")
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
import PenstockLog
import PenstockSystem
import PenstockTesting
import Testing

/// The file `HEAD`: the loss of the newest segment is noticed, and no crash of its writes refuses a
/// store.
@Suite struct TheHeadFile {
  let disk = SimulatedFileSystem()

  /// Segments that begin with LSN 1, 2, 3 and 4, and what was committed in them.
  private func fourSegments() throws -> Session {
    var session = try newLog(disk)
    for number in 1...3 {
      if number > 1 { try session.prepare() }
      try session.commit(payload(number, size: 40_000))
    }
    return session
  }

  private func slots() throws -> [UInt32?] {
    let bytes = try #require(disk.contents(of: headFile))
    #expect(bytes.count == HeadSlot.fileSize)
    return (0..<2).map { slot in
      bytes.withRaw { HeadSlot($0, at: HeadSlot.offset(slot))?.ordinal }
    }
  }

  @Test func countsEachSegmentInTurn() throws {
    var session = try newLog(disk)
    #expect(try slots() == [0, nil])
    try session.commit(payload(1, size: 40_000))
    #expect(try slots() == [0, 1])
    try session.prepare()
    try session.commit(payload(2, size: 40_000))
    #expect(try slots() == [2, 1])
    disk.kill()
    session = try open(disk)
    #expect(try slots() == [2, 1], "an opening writes none")
    try session.prepare()
    try session.commit(payload(3))
    #expect(try slots() == [2, 3])
  }

  /// The segment's name is durable before `HEAD` counts it, and `HEAD` before a record is written.
  @Test func isDurableBeforeTheFirstFrame() throws {
    var session = try newLog(disk)
    let before = disk.callCount()
    try session.commit(payload(1), synced: false)
    let calls = disk.trace.suffix(disk.callCount() - before).filter {
      [.rename, .syncDirectory, .write, .syncData].contains($0.kind)
    }
    let kinds = calls.map(\.kind)
    #expect(
      kinds == [.write, .syncData, .rename, .syncDirectory, .write, .syncData, .write])
    #expect(calls.dropFirst(4).prefix(2).allSatisfy { $0.path == headFile })
  }

  @Test(arguments: [false, true]) func aRemovedNewestSegmentIsRefused(_ isClosed: Bool) throws {
    let session = try fourSegments()
    if isClosed { try session.log.seal() }
    disk.kill()
    for count in 1...3 {
      let copy = disk.opened()
      for first in (5 - count)...4 { copy.erase(segment(UInt64(first))) }
      let before = try snapshot(copy)
      let found = try #require(damage(copy), "the loss of \(count) segments is not noticed")
      #expect(found.file == StoreFileName.head)
      #expect(found.lsn == LSN(UInt64(5 - count)))
      #expect(found.reason == "4 segments were begun, and only \(4 - count) are there")
      #expect(try snapshot(copy) == before, "a refused opening changes nothing")
    }
  }

  /// Also the one that a run began after another ended without a seal.
  @Test func aRemovedSegmentBehindALossIsRefused() throws {
    _ = try fourSegments()
    disk.kill()
    var session = try open(disk)
    try session.prepare()
    let first = try session.commit(payload(4)).firstLSN
    disk.kill()
    disk.erase(segment(first))
    let found = try #require(damage(disk))
    #expect(found.file == StoreFileName.head)
    #expect(found.lsn == LSN(first))
  }

  @Test func aMissingFileIsRefused() throws {
    _ = try fourSegments()
    disk.kill()
    disk.erase(headFile)
    let before = try snapshot(disk)
    let found = try #require(damage(disk))
    #expect(found.file == StoreFileName.head)
    #expect(found.reason == "the file is missing")
    #expect(try snapshot(disk) == before, "a refused opening changes nothing")
  }

  @Test func twoDamagedSlotsAreRefused() throws {
    _ = try fourSegments()
    disk.kill()
    let whole = try #require(disk.contents(of: headFile))
    var damaged = whole
    for slot in 0..<2 { damaged[HeadSlot.offset(slot) + 12] ^= 1 }
    let zeros = [UInt8](repeating: 0, count: HeadSlot.fileSize)
    for bytes in [damaged, zeros, [], Array(whole.prefix(39))] {
      disk.replace(headFile, with: bytes)
      let before = try snapshot(disk)
      let found = try #require(damage(disk))
      #expect(found.file == StoreFileName.head)
      #expect(found.reason == "it is damaged, or another store's")
      #expect(try snapshot(disk) == before, "a refused opening changes nothing")
    }
  }

  /// As a torn write leaves it.
  @Test(arguments: [0, 1]) func oneDamagedSlotIsAccepted(_ slot: Int) throws {
    _ = try fourSegments()
    disk.kill()
    disk.edit(headFile) { $0[HeadSlot.offset(slot) + 20] ^= 1 }
    var session = try open(disk)
    #expect(session.found.lastLSN == 4)
    try session.prepare()
    let first = try session.commit(payload(4)).firstLSN
    let other = UInt32(slot == 1 ? 2 : 3)
    #expect(try slots() == (slot == 0 ? [4, other] : [other, 4]))
    disk.erase(segment(first))
    disk.kill()
    #expect(damage(disk)?.file == StoreFileName.head)
  }

  @Test func noFlippedBitIsTakenForALoss() throws {
    _ = try fourSegments()
    disk.kill()
    for slot in 0..<2 {
      for bit in HeadSlot.offset(slot) * 8..<(HeadSlot.offset(slot) + HeadSlot.size) * 8 {
        let copy = disk.opened()
        copy.flipBit(bit, in: headFile)
        if let error = refusal(copy) { Issue.record("bit \(bit): \(error)") }
      }
    }
  }

  @Test func theFileOfAnotherStoreIsRefused() throws {
    _ = try fourSegments()
    disk.kill()
    let other = SimulatedFileSystem()
    _ = try open(other, seed: 99)
    disk.replace(headFile, with: try #require(other.contents(of: headFile)))
    let found = try #require(damage(disk))
    #expect(found.file == StoreFileName.head)
    #expect(found.reason == "it is damaged, or another store's")
  }

  /// Other programs have files of that name.
  @Test func aStrangersFileOfThatNameIsLeftAlone() throws {
    for bytes in [[], Array("ref: refs/heads/main\n".utf8), [UInt8](repeating: 1, count: 8192)] {
      let strange = SimulatedFileSystem()
      try strange.createDirectory(directory)
      strange.replace(headFile, with: bytes)
      guard case .notAStore(_, let reason) = refusal(strange) else {
        Issue.record("not refused")
        continue
      }
      #expect(reason.contains("HEAD"))
      #expect(try snapshot(strange) == ["HEAD": bytes])
    }
  }

  /// `STORE` and every segment are gone: no new store is made over what is left.
  @Test func aFileThatCountsSegmentsWithoutAStoreIsRefused() throws {
    _ = try fourSegments()
    disk.kill()
    for first in 1...4 { disk.erase(segment(UInt64(first))) }
    disk.erase(path(StoreFileName.store))
    let head = disk.contents(of: headFile)
    let found = try #require(damage(disk))
    #expect(found.file == StoreFileName.head)
    #expect(found.reason.contains("the file STORE is missing"))
    #expect(disk.contents(of: headFile) == head)
  }

  /// The process before may have died before its sync: what is read is made durable first.
  @Test func isSyncedBeforeItIsRead() throws {
    _ = try fourSegments()
    disk.kill()
    let before = disk.callCount()
    _ = try open(disk)
    let calls = disk.trace.suffix(disk.callCount() - before).filter {
      $0.path == headFile && [.syncData, .read].contains($0.kind)
    }
    #expect(calls.map(\.kind) == [.syncData, .read])
  }
}

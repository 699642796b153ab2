// SPDX-License-Identifier: Apache-2.0
import PenstockLog
import PenstockSystem
import PenstockTesting
import Testing

/// The recovery table of `Docs/format.md`: one test per row, named by the row.
@Suite struct RecoveryOfTheNewestSegment {
  let disk = SimulatedFileSystem()

  /// Three synced commits (LSN 2 to 4), each in a sector of its own.
  private func threeCommits() throws -> (Session, [Placed]) {
    var session = try newLog(disk)
    let frames = try (1...3).map { try session.commit(payload($0)) }
    return (session, frames)
  }

  @Test func aSealIsACleanClose() throws {
    let (session, _) = try threeCommits()
    try session.log.seal()
    let again = try reopened(disk)
    #expect(again.found.end == .sealed)
    #expect(again.found.payloads == [2: payload(1), 3: payload(2), 4: payload(3)])
    #expect(again.recovery.droppedBytes == 0)
    #expect(again.recovery.evidence == nil)
  }

  @Test func zerosBehindTheLastFrameAreACleanEnd() throws {
    _ = try threeCommits()
    let again = try reopened(disk)
    #expect(again.found.end == .clean)
    #expect(again.found.lastLSN == 4)
    #expect(again.recovery.droppedBytes == 0)
    #expect(again.recovery.evidence == nil)
  }

  /// No crash shortens a segment that has no seal: what was cut off may have been acknowledged.
  @Test func aTruncatedSegmentIsRefusedAtEverySector() throws {
    _ = try threeCommits()
    let sizes = stride(from: 0, to: segmentSize, by: LogFormat.sectorSize)
    for size in Array(sizes) + [4097, 5000, segmentSize - 1] {
      let copy = disk.opened()
      copy.edit(segment(2)) { $0.removeLast($0.count - size) }
      let before = try snapshot(copy)
      let found = try #require(damage(copy), "a file of \(size) bytes is not refused")
      #expect(path(found.file) == segment(2))
      let reason =
        size < LogFormat.segmentHeaderSize
        ? "the segment header is damaged"
        : "the file has \(size) bytes and no seal, though \(segmentSize) were made"
      #expect(found.reason == reason)
      #expect(try snapshot(copy) == before, "a refused opening changes nothing")
    }
  }

  @Test(arguments: [1, 4096, segmentSize]) func aLongerSegmentIsRefused(_ more: Int) throws {
    _ = try threeCommits()
    disk.edit(segment(2)) { $0 += [UInt8](repeating: 0, count: more) }
    disk.kill()
    let found = try #require(damage(disk))
    #expect(path(found.file) == segment(2))
    #expect(found.reason.contains("and no seal, though \(segmentSize) were made"))
  }

  @Test func aTornTailIsKeptAsideAndReported() throws {
    let (_, frames) = try threeCommits()
    let torn = frames[2].offset + 80
    disk.edit(segment(2)) { $0[torn] ^= 1 }
    let before = try #require(disk.contents(of: segment(2)))
    disk.kill()
    let again = try open(disk)
    #expect(again.found.end == .torn)
    #expect(again.found.payloads == [2: payload(1), 3: payload(2)])
    let name = StoreFileName.segment(LSN(2)) + StoreFileName.evidenceMark + "3000"
    #expect(again.recovery.evidence == name)
    #expect(again.recovery.evidenceFailure == nil)
    let evidence = Array(before[frames[2].offset..<frames[2].recordsEnd])
    #expect(again.recovery.droppedBytes == evidence.count)
    #expect(disk.contents(of: path(name)) == evidence)
    #expect(try reopened(disk).found.end == .sealed)
  }

  @Test func garbageWithoutAFrameIsATornTail() throws {
    let (_, frames) = try threeCommits()
    disk.edit(segment(2)) { bytes in
      bytes.put(payload(9, size: 5000), at: frames[2].end)
    }
    let again = try reopened(disk)
    #expect(again.found.end == .torn)
    #expect(again.found.lastLSN == 4)
    #expect(again.recovery.droppedBytes == 5000)
  }

  @Test func framesOfAnUnsyncedWindowOutOfOrderAreDropped() throws {
    var session = try newLog(disk)
    try session.commit(payload(1))
    let lost = try session.commit(payload(2), synced: false)
    try session.commit(payload(3), synced: false)
    try session.commit(payload(4), synced: false)
    disk.edit(segment(2)) { $0.zero(from: lost.offset, to: lost.end) }
    let again = try reopened(disk)
    #expect(again.found.end == .unsyncedWindow)
    #expect(again.found.payloads == [2: payload(1)])
    #expect(again.recovery.droppedBytes > 0)
    #expect(again.recovery.evidence != nil)
  }

  @Test func damageBelowTheDurableMarkIsRefused() throws {
    let (_, frames) = try threeCommits()
    disk.edit(segment(2)) { $0[frames[1].offset + 70] ^= 4 }
    let before = try snapshot(disk)
    disk.kill()
    let found = try #require(damage(disk))
    #expect(found.file == StoreFileName.segment(LSN(2)))
    #expect(found.offset == UInt64(frames[1].offset))
    #expect(found.lsn == LSN(3))
    #expect(found.reason.contains("LSN 3 to 3 were durable"))
    #expect(try snapshot(disk) == before, "a refused opening changes nothing")
  }

  @Test func zerosBelowTheDurableMarkAreRefused() throws {
    let (_, frames) = try threeCommits()
    disk.edit(segment(2)) { $0.zero(from: frames[1].offset, to: frames[1].end) }
    disk.kill()
    #expect(damage(disk)?.lsn == LSN(3))
  }

  @Test func theHeartbeatBearsWitnessForTheLastCommit() throws {
    var (session, frames) = try threeCommits()
    try session.heartbeat()
    disk.edit(segment(2)) { $0[frames[2].offset + 70] ^= 4 }
    disk.kill()
    #expect(damage(disk)?.lsn == LSN(4))
    #expect(session.tail.takeHeartbeat() == nil, "one is enough")
  }

  @Test func theSealBearsWitnessForAllBeforeIt() throws {
    let (session, frames) = try threeCommits()
    try session.log.seal()
    disk.edit(segment(2)) { $0[frames[2].offset + 70] ^= 4 }
    disk.kill()
    #expect(damage(disk)?.lsn == LSN(4))
  }

  /// The known hole: nothing on disk tells this from a torn write.
  @Test func damageToTheLastCommitWithoutAWitnessIsTakenForATornTail() throws {
    let (_, frames) = try threeCommits()
    disk.edit(segment(2)) { $0[frames[2].offset + 70] ^= 4 }
    let again = try reopened(disk)
    #expect(again.found.end == .torn)
    #expect(again.found.lastLSN == 3)
  }

  /// It was durable before `STORE` was. An opening that removed its file left no segment at all,
  /// and the next one was refused.
  @Test(arguments: [4096, 8192, 12_288]) func aStoreWithoutItsFirstRecordIsRefused(size: Int) throws
  {
    try open(disk).log.close()
    disk.edit(segment(1)) { bytes in
      bytes.zero(from: LogFormat.segmentHeaderSize)
      bytes.removeLast(bytes.count - size)
    }
    disk.kill()
    let before = try snapshot(disk)
    let found = try #require(damage(disk))
    #expect(found.lsn == LSN(1))
    #expect(found.offset == UInt64(LogFormat.segmentHeaderSize))
    #expect(try snapshot(disk) == before, "a refused opening changes nothing")
  }

  /// No log writes one. The next segment would begin with the same LSN and take its name.
  @Test func aSealWithoutARecordBeforeItIsRefused() throws {
    let (session, frames) = try threeCommits()
    try session.log.seal()
    let bytes = try #require(disk.contents(of: segment(2)))
    let header = encoded {
      _ = SegmentHeader(
        store: session.log.storeFile.store, salt: 9, firstLSN: LSN(5), ordinal: 2,
        previous: bytes.u32(at: frames[2].end + 60), capacity: UInt32(segmentSize)
      ).write(into: $0)
    }
    let body = encoded {
      for value in [0, 4, 8192] { $0.put(UInt64(value)) }
    }
    let seal = encoded(room: LogFormat.frameHeaderSize) {
      _ = FrameHeader(
        kind: .seal, salt: 9, firstLSN: LSN(5), count: 0, bodyLength: 24, extent: 4096,
        previous: header.u32(at: LogFormat.segmentHeaderSize - 4), durableLSN: LSN(4),
        offset: 4096, bodyChecksum: body.withRaw { CRC32C.of($0) }
      ).write(into: $0)
    }
    let zeros = [UInt8](repeating: 0, count: 4096 - seal.count - body.count)
    disk.replace(segment(5), with: header + seal + body + zeros)
    disk.kill()
    let found = try #require(damage(disk))
    #expect(found.file == StoreFileName.segment(LSN(5)))
    #expect(found.reason.contains("no record"))
  }

  @Test func bytesBehindTheSealAreRefused() throws {
    let (session, frames) = try threeCommits()
    try session.log.seal()
    disk.edit(segment(2)) { $0 += [0, 0, 1] }
    disk.kill()
    #expect(damage(disk)?.offset == UInt64(frames[2].end + LogFormat.sectorSize))
  }

  @Test func anEmptyNewestSegmentIsSealedLikeAnyOther() throws {
    let (session, _) = try threeCommits()
    try session.log.seal()
    session.log.close()
    let empty = try open(disk)
    let buffer = CommitBuffer(capacity: segmentSize)
    let chain = try #require(disk.contents(of: segment(2))).u32(at: 0x4000 + 60)
    let header = SegmentHeader(
      store: empty.log.storeFile.store, salt: 5, firstLSN: LSN(5), ordinal: 2, previous: chain,
      capacity: UInt32(segmentSize))
    _ = header.write(into: buffer)
    buffer.putZeros(segmentSize - buffer.count)
    disk.replace(segment(5), with: buffer.withBytes { $0.array })
    disk.kill()

    var again = try open(disk)
    #expect(again.found.end == .clean)
    #expect(again.found.lastLSN == 4)
    #expect(again.recovery.lastLSN == LSN(4))
    #expect(again.recovery.segments == 3)
    #expect(disk.contents(of: segment(5))?.count == 2 * LogFormat.sectorSize)
    try again.prepare()
    let next = try again.commit(payload(4)).firstLSN
    #expect(next == lsn(afterLossAt: 4))
    let last = try reopened(disk)
    #expect(last.found.payloads == [2: payload(1), 3: payload(2), 4: payload(3), next: payload(4)])
    #expect(last.recovery.segments == 4)
  }

  @Test func aReadErrorIsNeverTakenForATornTail() throws {
    let (_, frames) = try threeCommits()
    let names = [segment(2), segment(1), path(StoreFileName.store), headFile]
    for (name, offset) in zip(names, [UInt64(frames[2].offset), 4096, 0, 4096]) {
      let copy = disk.opened()
      let before = try snapshot(copy)
      copy.setUnreadable([offset..<offset + 1], in: name)
      guard case .system(let error) = refusal(copy) else {
        Issue.record("\(name) was not refused with a system error")
        continue
      }
      #expect(error.errno == 5)
      #expect(error.path == name)
      #expect(try snapshot(copy) == before)
      copy.setUnreadable([], in: name)
      #expect(try reopened(copy).found.lastLSN == 4)
    }
  }

  @Test func aFailedSyncAtOpeningIsRefused() throws {
    _ = try threeCommits()
    for kind in [CallKind.sync, .syncData, .syncDirectory] {
      let copy = disk.opened()
      copy.inject(Fault([kind], errno: 5))
      guard case .system = refusal(copy) else {
        Issue.record("\(kind) was not looked at")
        continue
      }
    }
  }

  @Test func aFullDiskDoesNotKeepALogFromOpening() throws {
    let (_, frames) = try threeCommits()
    disk.edit(segment(2)) { bytes in
      bytes.put(payload(9, size: 5000), at: frames[2].end)
    }
    disk.kill()
    disk.capacity = disk.used
    let again = try open(disk)
    #expect(again.found.end == .torn)
    #expect(again.found.lastLSN == 4)
    #expect(again.recovery.evidence == nil)
    #expect(again.recovery.evidenceFailure != nil)
    let names = try disk.list(directory)
    #expect(names.allSatisfy { !$0.contains(StoreFileName.evidenceMark) })
    #expect(names.allSatisfy { !$0.hasSuffix(StoreFileName.partialSuffix) })
    #expect(try reopened(disk).found.end == .sealed)
  }
}

@Suite struct RecoveryOfOlderSegments {
  let disk = SimulatedFileSystem()

  /// Segments that begin with LSN 1, 2 and 3; the last is not sealed.
  private func threeSegments() throws {
    var session = try newLog(disk)
    try session.commit(payload(1, size: 40_000))
    try session.prepare()
    try session.commit(payload(2, size: 40_000))
    disk.kill()
    let names = try disk.list(directory).filter { $0.hasSuffix(StoreFileName.segmentSuffix) }
    #expect(names == (1...3).map { StoreFileName.segment(LSN($0)) })
  }

  @Test func damageInASealedSegmentIsRefused() throws {
    try threeSegments()
    disk.edit(segment(2)) { $0[4096 + 100] ^= 1 }
    let found = try #require(damage(disk))
    #expect(found.file == StoreFileName.segment(LSN(2)))
    #expect(found.offset == 4096)
    #expect(found.lsn == LSN(2))
  }

  @Test func aSealedSegmentWithoutItsSealIsRefused() throws {
    try threeSegments()
    disk.edit(segment(2)) { $0.removeLast(4096) }
    #expect(damage(disk)?.reason == "the segment ends without its seal")
    disk.edit(segment(2)) { $0 += [UInt8](repeating: 0, count: 4096) }
    #expect(damage(disk)?.reason == "the segment ends without its seal")
  }

  @Test func aSealedSegmentThatGoesOnIsRefused() throws {
    try threeSegments()
    disk.edit(segment(2)) { $0.append(0) }
    #expect(damage(disk)?.reason == "the file goes on behind its seal")
  }

  @Test func aMissingSegmentIsRefused() throws {
    try threeSegments()
    for (missing, next) in [(1, 2), (2, 3)] {
      let copy = disk.opened()
      copy.erase(segment(UInt64(missing)))
      let found = try #require(damage(copy))
      #expect(found.file == StoreFileName.segment(LSN(UInt64(next))))
      #expect(found.lsn == LSN(UInt64(next)))
      #expect(found.reason.contains("a segment is missing before this one"))
    }
  }

  @Test func allSegmentsMissingIsRefused() throws {
    try threeSegments()
    for first in 1...3 { disk.erase(segment(UInt64(first))) }
    #expect(damage(disk)?.file == StoreFileName.store)
  }

  @Test func aSegmentOfAnotherStoreIsRefused() throws {
    try threeSegments()
    let other = SimulatedFileSystem()
    var session = try open(other, seed: 99)
    try session.prepare()
    try session.commit(payload(1, size: 40_000))
    try session.log.seal()
    disk.replace(segment(2), with: try #require(other.contents(of: segment(2))))
    #expect(damage(disk)?.reason == "the segment belongs to another store")
  }

  /// Same store, same name, an older life: the chain tells.
  @Test func aSegmentOfAnotherLifeIsRefused() throws {
    try threeSegments()
    disk.edit(segment(3)) { bytes in
      bytes.put([1, 2, 3, 4], at: 52)
      bytes.put(Array(resealed(Array(bytes[0..<4096])).suffix(4)), at: 4092)
    }
    #expect(damage(disk)?.reason == "the segment does not continue the one before it")
  }

  @Test func aRenamedSegmentIsRefused() throws {
    try threeSegments()
    let bytes = try #require(disk.contents(of: segment(3)))
    disk.erase(segment(3))
    disk.replace(segment(9), with: bytes)
    #expect(damage(disk)?.reason == "the segment's name and header disagree")
  }

  @Test func aSegmentWithoutItsHeaderIsRefused() throws {
    try threeSegments()
    for size in [0, 1, 100, 4095] {
      let copy = disk.opened()
      copy.edit(segment(3)) { $0.removeLast($0.count - size) }
      #expect(damage(copy)?.reason == "the segment header is damaged")
    }
  }

  @Test(arguments: [UInt64(2), 3]) func aSegmentOfAnotherVersionIsNamed(_ first: UInt64) throws {
    try threeSegments()
    disk.edit(segment(first)) { bytes in
      bytes[8] = 9
      bytes.put(Array(resealed(Array(bytes[0..<4096])).suffix(4)), at: 4092)
    }
    guard case .unsupportedVersion(let file, let version) = refusal(disk) else {
      Issue.record("not refused by its version")
      return
    }
    #expect(file == segment(first))
    #expect(version == 9)
  }
}

@Suite struct RecoveryOfTheDirectory {
  let disk = SimulatedFileSystem()

  private func oneCommit() throws {
    var session = try newLog(disk)
    try session.commit(payload(1))
    disk.kill()
  }

  @Test func aMissingStoreFileBesideSegmentsInUseIsRefused() throws {
    try oneCommit()
    disk.erase(path(StoreFileName.store))
    #expect(damage(disk)?.reason.contains("the file STORE is missing") == true)
    #expect(disk.contents(of: path(StoreFileName.store)) == nil)
  }

  @Test func aDamagedStoreFileIsRefused() throws {
    try oneCommit()
    for bit in stride(from: 0, to: 512, by: 7) {
      let copy = disk.opened()
      copy.flipBit(bit, in: path(StoreFileName.store))
      #expect(damage(copy)?.file == StoreFileName.store)
    }
    for size in [0, 63] {
      let copy = disk.opened()
      copy.edit(path(StoreFileName.store)) { $0.removeLast(64 - size) }
      #expect(damage(copy)?.file == StoreFileName.store)
    }
  }

  @Test func aStoreFileOfAnotherVersionIsNamed() throws {
    try oneCommit()
    disk.edit(path(StoreFileName.store)) { bytes in
      bytes[8] = LogFormat.version + 1
      bytes = resealed(bytes)
    }
    guard case .unsupportedVersion(let file, UInt32(LogFormat.version) + 1) = refusal(disk) else {
      Issue.record("not refused by its version")
      return
    }
    #expect(file == path(StoreFileName.store))
  }

  @Test func unknownFilesAreReportedAndLeftAlone() throws {
    try oneCommit()
    disk.replace(path("notes.txt"), with: [1])
    disk.replace(path("0000000000000002.SEG"), with: [2])
    let again = try open(disk)
    #expect(again.recovery.unknownFiles == ["0000000000000002.SEG", "notes.txt"])
    #expect(disk.contents(of: path("notes.txt")) == [1])
  }

  @Test func aDirectoryWithOtherFilesDoesNotBecomeAStore() throws {
    try disk.createDirectory(directory)
    disk.replace(path("notes.txt"), with: [1])
    guard case .notAStore(_, let reason) = refusal(disk) else {
      Issue.record("not refused")
      return
    }
    #expect(reason.contains("notes.txt"))
    #expect(try disk.list(directory) == ["notes.txt"])
  }

  @Test func halfMadeFilesAreRemoved() throws {
    try oneCommit()
    disk.replace(path("0123456789abcdef" + StoreFileName.partialSuffix), with: [1])
    disk.replace(path(StoreFileName.newStore), with: [1])
    disk.replace(path("0123456789abcdef" + StoreFileName.preparedSuffix), with: [0, 0])
    let again = try open(disk)
    #expect(again.recovery.unknownFiles == [])
    #expect(
      try disk.list(directory)
        == [StoreFileName.segment(LSN(1)), StoreFileName.segment(LSN(2)), "HEAD", "LOCK", "STORE"])
  }

  @Test func aStrangersFilesAreNeverRemoved() throws {
    try disk.createDirectory(directory)
    let names = ["film.mkv.partial", "film.next", "0123.partial", "x.seg.torn-1"]
    for name in names { disk.replace(path(name), with: [1]) }
    guard case .notAStore = refusal(disk) else {
      Issue.record("not refused")
      return
    }
    #expect(try disk.list(directory) == names.sorted())
  }

  @Test func nothingIsRemovedFromAStoreThatIsRefused() throws {
    try oneCommit()
    let half = "0123456789abcdef" + StoreFileName.partialSuffix
    disk.replace(path(half), with: [1])
    disk.replace(path(StoreFileName.store), with: [1])
    guard case .corrupted = refusal(disk) else {
      Issue.record("not refused")
      return
    }
    #expect(disk.contents(of: path(half)) == [1])
  }

  @Test func aSecondOwnerIsRefused() throws {
    let session = try newLog(disk)
    guard case .inUse = refusal(disk) else {
      Issue.record("two owners")
      return
    }
    session.log.close()
    #expect(refusal(disk) == nil)
  }

  /// A file at a time, as a crash of `createStore` can leave them; `HEAD` gets its name when it is
  /// whole.
  @Test func aCreationThatDidNotEndIsMadeAnew() throws {
    _ = try open(disk)
    disk.kill()
    let first = try #require(disk.contents(of: segment(1)))
    let head = try #require(disk.contents(of: headFile))
    for size in [nil, 0, 1, 4096, 8192, first.count] {
      for hasHead in [false, true] {
        let half = SimulatedFileSystem()
        try half.createDirectory(directory)
        if let size { half.replace(segment(1), with: Array(first.prefix(size))) }
        if hasHead { half.replace(headFile, with: head) }
        half.replace(path("0123456789abcdef" + StoreFileName.partialSuffix), with: [0])
        half.replace(path(StoreFileName.newStore), with: [1, 2])
        let again = try open(half, seed: 3)
        #expect(again.found.end == .created)
        #expect(again.found.lastLSN == 1)
        #expect(half.contents(of: segment(1))?.count == first.count)
        #expect(half.contents(of: headFile) != head, "another store's")
        #expect(try reopened(half).found.end == .sealed)
      }
    }
  }

  @Test(arguments: [0, 4096, 65_535, 65_537, 1 << 31]) func aSegmentSizeOutOfRangeIsRefused(
    _ size: Int
  ) {
    #expect(throws: LogError.self) { try open(disk, segmentSize: size) }
  }

  /// Its caller's own error ends an opening, and nothing is changed.
  @Test func anErrorOfTheReplayEndsTheOpening() throws {
    try oneCommit()
    let refused = LogError.invalidOption("no")
    #expect(throws: LogError.self) {
      _ = try SegmentedLog.open(
        directory: directory, fileSystem: disk, random: StableRandom(seed: 1),
        clock: SimulatedClock()
      ) { (_, _) throws(LogError) in throw refused }
    }
    #expect(try open(disk).found.lastLSN == 2, "the lock is free again")
  }
}

// SPDX-License-Identifier: Apache-2.0
import PenstockLog
import PenstockSystem
import PenstockTesting
import Testing

/// The LSN that a seal names, and how a recovery gets to the seal that it writes.
@Suite struct Seals {
  let disk = SimulatedFileSystem()

  /// LSN 2 to 4, synced, in one segment without a seal.
  private func threeCommits() throws -> (Session, [Placed]) {
    var session = try newLog(disk)
    let frames = try (1...3).map { try session.commit(payload($0)) }
    return (session, frames)
  }

  // MARK: The last LSN given out

  @Test func aCleanCloseLeavesNoGap() throws {
    var (session, _) = try threeCommits()
    try session.log.seal()
    session.log.close()
    session = try open(disk)
    #expect(session.recovery.lastLSN == LSN(4))
    #expect(session.tail.nextLSN == LSN(5))
  }

  /// What the report names is the last record, not the last LSN that may have been given out; also
  /// when the newest segment holds no record.
  @Test func theReportNamesTheLastRecord() throws {
    var (session, _) = try threeCommits()
    disk.kill()
    for round in 1...3 as ClosedRange<UInt64> {
      session = try open(disk)
      #expect(session.recovery.lastLSN == LSN(4))
      #expect(session.found.lastLSN == 4)
      #expect(session.tail.nextLSN == LSN(lsn(afterLossAt: 4)), "one loss, round \(round)")
      session.log.close()
    }
    session = try open(disk)
    try session.prepare()
    let next = try session.commit(payload(4)).firstLSN
    #expect(try reopened(disk).recovery.lastLSN == LSN(next))
  }

  @Test func eachLossLeavesAGap() throws {
    var (session, _) = try threeCommits()
    var expected: [UInt64: [UInt8]] = [2: payload(1), 3: payload(2), 4: payload(3)]
    var last: UInt64 = 4
    for number in 4...8 {
      disk.kill()
      session = try open(disk)
      try session.prepare()
      let next = try session.commit(payload(number)).firstLSN
      #expect(next == lsn(afterLossAt: last))
      expected[next] = payload(number)
      last = next
    }
    let found = try reopened(disk).found
    #expect(found.payloads == expected)
    #expect(found.isAscending)
  }

  @Test func theNextSegmentMustBeginBehindTheLastLSN() throws {
    _ = try threeCommits()
    disk.kill()
    var session = try open(disk)
    try session.prepare()
    let first = try session.commit(payload(4)).firstLSN
    disk.kill()
    let bytes = try #require(disk.contents(of: segment(first)))
    for other in [first - 1, first + 1, 5] {
      let copy = disk.opened()
      copy.erase(segment(first))
      var forged = bytes
      forged.put((0..<8).map { UInt8(truncatingIfNeeded: other >> UInt64(8 * $0)) }, at: 40)
      forged.put(Array(resealed(Array(forged[0..<4096])).suffix(4)), at: 4092)
      copy.replace(segment(other), with: forged)
      let found = try #require(damage(copy))
      #expect(path(found.file) == segment(other))
      #expect(found.reason == "a segment is missing before this one: LSN \(first) was expected")
    }
  }

  /// A seal whose checksums are right and whose last LSN cannot be.
  @Test(arguments: [0, 1, 3, 1 << 56, (1 << 56) + 1, 1 << 62, 1 << 63, .max - 1, .max] as [UInt64])
  func aLastLSNOutOfRangeIsDamage(_ last: UInt64) throws {
    let (session, frames) = try threeCommits()
    try session.log.seal()
    disk.kill()
    let seal = frames[2].end
    #expect(disk.contents(of: segment(2))?.u64(at: seal + 64 + 8) == 4)
    func forge(_ last: UInt64) {
      disk.edit(segment(2)) { bytes in
        bytes.put((0..<8).map { UInt8(truncatingIfNeeded: last >> UInt64(8 * $0)) }, at: seal + 72)
        let body = bytes[seal + 64..<seal + 88].array.withRaw { CRC32C.of($0) }
        bytes.put((0..<4).map { UInt8(body >> UInt32(8 * $0) & 255) }, at: seal + 56)
        bytes.put(resealed(Array(bytes[seal..<seal + 64])), at: seal)
      }
    }
    forge(last)
    let found = try #require(damage(disk))
    #expect(path(found.file) == segment(2))
    #expect(found.offset == UInt64(seal))
    // One that can be and leaves none for the next segment is refused, not gone on from.
    forge((1 << 56) - 1)
    disk.kill()
    #expect(damage(disk)?.reason == "its LSNs are at their end: nothing can be appended")
    // The forger's work is right: with a last LSN that can be, it is believed.
    forge(4 + 77)
    disk.kill()
    #expect(try open(disk).tail.nextLSN == LSN(82))
  }

  // MARK: Erasing what is dropped

  /// A log whose end is torn, its disk, and the bytes that an opening drops.
  private func torn() throws -> (evidence: String, dropped: [UInt8]) {
    let (_, frames) = try threeCommits()
    let end = frames[2].end
    let garbage = payload(9, size: 9000)
    disk.edit(segment(2)) { $0.put(garbage.map { $0 | 1 }, at: end) }
    disk.kill()
    let name = StoreFileName.segment(LSN(2)) + StoreFileName.evidenceMark
    return (path(name + String(end, radix: 16)), garbage.map { $0 | 1 })
  }

  /// The calls that change the segment: zeros, synced, the seal, synced, the cut, synced.
  @Test func aRecoveryErasesThenSealsThenCuts() throws {
    let (_, dropped) = try torn()
    let before = disk.callCount()
    _ = try open(disk)
    let calls = disk.trace.suffix(disk.callCount() - before).filter {
      $0.path == segment(2) && [.write, .syncData, .sync, .truncate].contains($0.kind)
    }
    let kinds: [CallKind] = [.sync, .write, .syncData, .write, .syncData, .truncate, .sync]
    try #require(calls.map(\.kind) == kinds)
    let end = UInt64(4 * LogFormat.sectorSize)
    #expect(calls[1].offset == end && calls[1].length == dropped.count)
    #expect(calls[3].offset == end && calls[3].length == LogFormat.sectorSize)
    #expect(calls[5].offset == end + UInt64(LogFormat.sectorSize))
  }

  /// Power is lost at every call of an opening that drops bytes. Whenever one has succeeded, the
  /// bytes that were there at first are kept, even if an erasure was cut short in between.
  @Test(arguments: [false, true]) func theFirstCopyIsKept(_ garbling: Bool) throws {
    let (evidence, dropped) = try torn()
    let start = disk.copy()
    var outcomes = 0
    var partlyErased = 0
    let watched = WatchedFileSystem(disk) {
      for seed in 0..<12 as Range<UInt64> {
        var chooser = SeededChooser(seed: seed)
        let after = disk.crashed(choosing: &chooser, garbling: garbling)
        let left = after.contents(of: segment(2)).map { Array($0.dropFirst(16_384).prefix(9000)) }
        do throws(LogError) {
          let session = try open(after, seed: 60 + seed)
          if session.found.payloads != [2: payload(1), 3: payload(2), 4: payload(3)] {
            Issue.record("seed \(seed): other records")
          }
          if session.recovery.droppedBytes > 0, path(session.recovery.evidence ?? "") != evidence {
            Issue.record("seed \(seed): the report does not name the copy")
          }
        } catch { Issue.record("seed \(seed): refused: \(error)") }
        if after.contents(of: evidence) != dropped {
          Issue.record("seed \(seed): the copy differs")
        }
        let names = (try? after.list(directory)) ?? []
        if names.contains(where: { $0.hasSuffix(StoreFileName.partialSuffix) }) {
          Issue.record("seed \(seed): a half made copy stays")
        }
        outcomes += 1
        if let left, left != dropped, !left.allSatisfy({ $0 == 0 }) { partlyErased += 1 }
      }
    }
    _ = try open(watched, seed: 40)
    #expect(disk.contents(of: evidence) == dropped)
    #expect(outcomes > 100)
    #expect(partlyErased > 5, "an erasure cut short")
    #expect(start.contents(of: evidence) == nil)
  }

  /// As a crash behind the erasure leaves it: the report has nothing to tell, the copy stays.
  @Test func anErasedTailIsACleanEnd() throws {
    let (evidence, dropped) = try torn()
    disk.inject(Fault([.write], after: 2, errno: 5))
    guard case .system = refusal(disk) else {
      Issue.record("the seal was written")
      return
    }
    disk.kill()
    #expect(disk.contents(of: segment(2))?.count == segmentSize)
    let session = try open(disk)
    #expect(session.found.end == .clean)
    #expect(session.recovery.droppedBytes == 0)
    #expect(session.recovery.evidence == nil)
    #expect(disk.contents(of: evidence) == dropped)
    #expect(session.tail.nextLSN == LSN(lsn(afterLossAt: 4)))
  }

  /// A live seal that was not cut yet is found, and the file is cut then.
  @Test func aFailedCutBehindTheSealIsMadeGood() throws {
    let (session, frames) = try threeCommits()
    disk.inject(Fault([.truncate], after: 0, errno: 5))
    #expect(throws: SystemError.self) { try session.log.seal() }
    disk.kill()
    #expect(disk.contents(of: segment(2))?.count == segmentSize)
    let again = try open(disk)
    #expect(again.found.end == .sealed)
    #expect(again.tail.nextLSN == LSN(5), "nothing was lost")
    #expect(disk.contents(of: segment(2))?.count == frames[2].end + LogFormat.sectorSize)
  }
}

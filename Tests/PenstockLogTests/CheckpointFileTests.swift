// SPDX-License-Identifier: Apache-2.0
import PenstockLog
import PenstockSystem
import PenstockTesting
import Testing

func sampleCheckpoint() -> CheckpointHeader {
  CheckpointHeader(
    store: StoreID(high: 0x0102_0304_0506_0708, low: 0x1112_1314_1516_1718),
    lsn: LSN(0x0021_2223_2425_2627), ordinal: 0x0142_4344, firstLSN: LSN(0x0031_3233_3435_3637),
    previous: 0x5152_5354)
}

/// A disk with one checkpoint whose body is written in these chunks. Returns the file's name.
func writeCheckpoint(
  _ header: CheckpointHeader, _ chunks: [[UInt8]], to disk: SimulatedFileSystem
) throws -> String {
  var writer = try CheckpointWriter(header, directory: directory, number: 1, disk)
  for chunk in chunks {
    let buffer = CommitBuffer(capacity: 64)
    buffer.put(chunk)
    try writer.append(buffer)
    #expect(buffer.count == 0)
  }
  let (name, bytes) = try writer.finish()
  #expect(name == StoreFileName.checkpoint(header.lsn))
  #expect(Int(bytes) == disk.contents(of: path(name))?.count)
  return name
}

private func newDisk() throws -> SimulatedFileSystem {
  let disk = SimulatedFileSystem()
  try disk.createDirectory(directory)
  return disk
}

@Suite struct CheckpointHeaders {
  private func decode(_ bytes: [UInt8]) -> CheckpointHeader? {
    bytes.withRaw { raw in
      do throws(SegmentHeader.Failure) { return try CheckpointHeader(raw) } catch { return nil }
    }
  }

  @Test func whatIsWrittenIsRead() {
    let bytes = encoded { sampleCheckpoint().write(into: $0) }
    #expect(bytes.count == CheckpointHeader.size)
    #expect(decode(bytes) == sampleCheckpoint())
    #expect(decode(bytes + [1, 2, 3]) == sampleCheckpoint())
  }

  @Test func everyFlippedBitAndEveryCutIsRefused() {
    var bytes = encoded { sampleCheckpoint().write(into: $0) }
    for length in 0..<bytes.count { #expect(decode(Array(bytes.prefix(length))) == nil) }
    for bit in 0..<bytes.count * 8 {
      bytes.flip(bit: bit)
      #expect(decode(bytes) == nil, "bit \(bit)")
      bytes.flip(bit: bit)
    }
  }

  /// With a right checksum.
  @Test func whatCannotBeIsRefused() {
    func refused(_ change: (inout CheckpointHeader) -> Void) -> Bool {
      var header = sampleCheckpoint()
      change(&header)
      return decode(encoded { header.write(into: $0) }) == nil
    }
    #expect(!refused { $0.lsn = LSN($0.firstLSN.value - 1) })
    #expect(!refused { $0.lsn = $0.firstLSN })
    #expect(refused { $0.lsn = LSN(1 << 56) })
    #expect(refused { $0.firstLSN = LSN(.max) })
    #expect(refused { $0.ordinal = .max })
    let bytes = encoded { sampleCheckpoint().write(into: $0) }
    for zero in [12, 15, 56, 59] {
      var changed = bytes
      changed[zero] = 1
      #expect(decode(resealed(changed)) == nil, "byte \(zero)")
    }
  }
}

@Suite struct CheckpointFiles {
  private func read(_ disk: SimulatedFileSystem, _ name: String) throws -> Checkpoint? {
    try Checkpoint.read(path(name), disk)
  }

  @Test(arguments: 0..<12) func giveBackWhatWasWritten(seed: Int) throws {
    let random = StableRandom(seed: UInt64(seed))
    let disk = try newDisk()
    let chunks = (0..<seed).map { _ in
      (0..<[0, 1, 8, 4096, 70_000][random.below(5)]).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    }
    let name = try writeCheckpoint(sampleCheckpoint(), chunks, to: disk)
    let found = try #require(try read(disk, name))
    #expect(found.header == sampleCheckpoint())
    #expect(found.body == Array(chunks.joined()))
    #expect(try disk.list(directory) == [name])
  }

  @Test func everyFlippedBitIsNoticed() throws {
    let disk = try newDisk()
    let name = try writeCheckpoint(
      sampleCheckpoint(), [payload(1, size: 40), payload(2, size: 3)], to: disk)
    let count = try #require(disk.contents(of: path(name))).count
    #expect(count == 64 + 8 + 40 + 8 + 3 + 16)
    for bit in 0..<count * 8 {
      disk.flipBit(bit, in: path(name))
      #expect(try read(disk, name) == nil, "bit \(bit)")
      disk.flipBit(bit, in: path(name))
    }
    #expect(try read(disk, name) != nil)
  }

  @Test func everyCutIsNoticedAndWhatFollows() throws {
    let disk = try newDisk()
    let name = try writeCheckpoint(
      sampleCheckpoint(), [payload(1, size: 40), payload(2, size: 3)], to: disk)
    let whole = try #require(disk.contents(of: path(name)))
    for length in 0..<whole.count {
      disk.replace(path(name), with: Array(whole.prefix(length)))
      #expect(try read(disk, name) == nil, "\(length) bytes")
    }
    disk.replace(path(name), with: whole + [0])
    #expect(try read(disk, name) == nil)
    // A chunk that is left out, with those around it right.
    disk.replace(path(name), with: Array(whole[..<112]) + Array(whole[123...]))
    #expect(try read(disk, name) == nil)
  }

  /// A length decides how much memory is taken only when the file has as much.
  @Test(arguments: [41, 0x0400_0000, 0x0400_0001, 0x7fff_ffff, UInt32.max])
  func aHostileLengthIsRefused(length: UInt32) throws {
    let disk = try newDisk()
    let name = try writeCheckpoint(sampleCheckpoint(), [payload(1, size: 40)], to: disk)
    disk.edit(path(name)) {
      $0.put((0..<4).map { UInt8(length >> (8 * UInt32($0)) & 255) }, at: 64)
    }
    #expect(try read(disk, name) == nil)
  }

  @Test func randomBytesBehindAHeaderAreRefused() throws {
    let disk = try newDisk()
    let header = encoded { sampleCheckpoint().write(into: $0) }
    let random = StableRandom(seed: 6)
    for _ in 0..<300 {
      let bytes = (0..<random.below(64)).map { _ in UInt8([0, 1, 255, 8][random.below(4)]) }
      disk.replace(path("x"), with: header + bytes)
      #expect(try read(disk, "x") == nil)
    }
  }

  @Test func bytesThatCannotBeReadAreAsGoodAsDamaged() throws {
    let disk = try newDisk()
    let name = try writeCheckpoint(sampleCheckpoint(), [payload(1, size: 40)], to: disk)
    disk.setUnreadable([80..<81], in: path(name))
    #expect(try read(disk, name) == nil)
  }
}

/// Checkpoints of an opening; what the store above makes of them is tested there.
@Suite struct CheckpointsOfALog {
  /// What an opening took up, with a state that is the text of the checkpoint.
  private struct Outcome {
    var body: [UInt8]?
    var payloads: [UInt64: [UInt8]] = [:]
    var report: LogRecovery
  }

  private func openWithState(_ disk: SimulatedFileSystem) throws(LogError) -> Outcome {
    var options = LogOptions()
    options.segmentSize = segmentSize
    var body: [UInt8]?
    var payloads: [UInt64: [UInt8]] = [:]
    let opened = try SegmentedLog.open(
      directory: directory, options: options, fileSystem: disk, random: StableRandom(seed: 9),
      clock: SimulatedClock(),
      restore: { state in
        body = state.array
        return nil
      }
    ) { (place, payload) throws(LogError) in payloads[place.lsn.value] = payload.array }
    opened.log.close()
    return Outcome(body: body, payloads: payloads, report: opened.recovery)
  }

  /// Three segments of one record each, and a checkpoint before the second and before the third.
  private func newLogWithCheckpoints() throws -> SimulatedFileSystem {
    let disk = SimulatedFileSystem()
    var session = try newLog(disk)
    try session.commit(payload(2))
    for lsn in UInt64(3)...4 {
      try session.log.seal()
      session.log.close()
      session = try open(disk, seed: lsn)
      try session.prepare()
      try session.commit(payload(Int(lsn)))
      let ordinal = try #require(session.log.segments.keys.max())
      try session.log.writeCheckpoint(lsn: LSN(lsn - 1), ordinal: ordinal) {
        (buffer, flush) throws(SystemError) in
        buffer.put(Array("state at \(lsn - 1)".utf8))
        try flush(buffer)
      }
    }
    try session.log.seal()
    session.log.close()
    disk.kill()
    return disk
  }

  private func name(_ lsn: UInt64) -> String { path(StoreFileName.checkpoint(LSN(lsn))) }

  @Test func theNewestCounts() throws {
    let found = try openWithState(try newLogWithCheckpoints())
    #expect(found.report.checkpoint == LSN(3))
    #expect(found.body == Array("state at 3".utf8))
    #expect(found.payloads == [4: payload(4)])
    #expect(found.report.replayedSegments == 1 && found.report.segments == 4)
  }

  @Test func aDamagedOneIsSetAsideAndTheOneBeforeItCounts() throws {
    let disk = try newLogWithCheckpoints()
    disk.flipBit(600, in: name(3))
    let found = try openWithState(disk)
    #expect(found.report.checkpoint == LSN(2))
    #expect(found.body == Array("state at 2".utf8))
    #expect(found.payloads.keys.sorted() == [3, 4])
    #expect(disk.contents(of: name(3)) == nil)
    #expect(disk.contents(of: name(3) + StoreFileName.damagedSuffix) != nil)
    // And again: it is no candidate, and nobody's stranger.
    disk.kill()
    let again = try openWithState(disk)
    #expect(again.report.checkpoint == LSN(2) && again.report.damagedCheckpoints == [])
    #expect(again.report.unknownFiles == [])
  }

  @Test func withoutAnyTheWholeLogIsRead() throws {
    let disk = try newLogWithCheckpoints()
    for lsn in UInt64(2)...3 { disk.flipBit(600, in: name(lsn)) }
    let found = try openWithState(disk)
    #expect(found.report.checkpoint == nil && found.body == nil)
    #expect(found.payloads.keys.sorted() == [1, 2, 3, 4])
  }

  @Test func withoutAnyALogWithoutItsBeginningIsRefused() throws {
    let disk = try newLogWithCheckpoints()
    disk.erase(segment(1))
    let found = try openWithState(disk)
    #expect(found.report.checkpoint == LSN(3))
    for lsn in UInt64(2)...3 { disk.flipBit(600, in: name(lsn)) }
    disk.kill()
    #expect(throws: LogError.self) { try openWithState(disk) }
  }

  @Test func theSegmentThatItGoesOnWithIsNeeded() throws {
    let disk = try newLogWithCheckpoints()
    disk.erase(segment(4))
    #expect(throws: LogError.self) { try openWithState(disk) }
  }

  /// One that a newer build wrote may be all that knows what was deleted: it must not be renamed.
  @Test func anotherVersionIsRefusedAndStaysAsItIs() throws {
    let disk = try newLogWithCheckpoints()
    disk.edit(name(3)) { bytes in
      var head = Array(bytes[..<64])
      head[8] = LogFormat.version + 1
      bytes.put(resealed(head), at: 0)
    }
    let before = try snapshot(disk)
    do {
      _ = try openWithState(disk)
      Issue.record("it was opened")
    } catch {
      guard case .unsupportedVersion(let file, let version) = error else {
        Issue.record("\(error)")
        return
      }
      #expect(file == name(3) && version == UInt32(LogFormat.version) + 1)
    }
    #expect(try snapshot(disk) == before)
  }
}

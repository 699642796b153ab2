// SPDX-License-Identifier: Apache-2.0
import PenstockLog
import PenstockSystem
import PenstockTesting
import Testing

/// A small log, its segments 1 and 2 sealed and 4 open, and where everything in it is.
private struct SmallLog {
  let disk = SimulatedFileSystem()
  /// The frames of segment 4, in order.
  private(set) var newest: [Placed] = []
  /// The frames of segment 2, without its seal.
  private(set) var older: [Placed] = []
  private(set) var payloads: [UInt64: [UInt8]] = [:]
  /// The highest LSN that a frame of the newest segment calls durable.
  private(set) var mark: UInt64 = 0

  static let first = segment(1)
  static let second = segment(2)
  static let last = segment(6)

  init() throws {
    var session = try newLog(disk)
    older.append(try commit(&session, [16], synced: true))
    older.append(try commit(&session, [3, 8], synced: false))
    older.append(try commit(&session, [40_000], synced: true))
    try session.prepare()
    newest.append(try commit(&session, [15_000], synced: true))
    newest.append(try commit(&session, [1], synced: false))
    newest.append(try commit(&session, [7, 0], synced: true))
    newest.append(try session.heartbeat())
    mark = session.tail.durableLSN.value
    newest.append(try commit(&session, [24], synced: false))
    newest.append(try commit(&session, [5, 6, 7], synced: false))
    newest.append(try commit(&session, [9], synced: true))
    disk.kill()
  }

  private mutating func commit(
    _ session: inout Session, _ sizes: [Int], synced: Bool
  ) throws -> Placed {
    for size in sizes {
      let payload = payload(payloads.count + 1, size: size)
      payloads[try session.append(payload, synced: synced).lsn.value] = payload
    }
    let placed = try session.commit()
    return try #require(placed.first)
  }

  func payloads(through last: UInt64) -> [UInt64: [UInt8]] { payloads.filter { $0.key <= last } }

  /// Frames that the newest segment's first bytes hold whole, and the last LSN of them.
  func lastLSN(ofFrames count: Int) -> UInt64 {
    newest.prefix(count).last.map { $0.firstLSN + UInt64($0.count) - 1 } ?? newest[0].firstLSN - 1
  }
}

@Suite struct TornTails {
  private func check(
    _ log: SmallLog, _ bytes: [UInt8], frames: Int, _ story: String
  ) {
    let disk = log.disk.opened()
    disk.replace(SmallLog.last, with: bytes)
    do {
      let found = try open(disk).found
      if found.payloads != log.payloads(through: log.lastLSN(ofFrames: frames)) {
        Issue.record("\(story): LSN \(found.lastLSN) is the last, with \(frames) whole frames")
      }
      let files = try snapshot(disk)
      disk.kill()
      let again = try open(disk)
      if again.found.payloads != found.payloads { Issue.record("\(story): other records") }
      if try snapshot(disk) != files { Issue.record("\(story): the second opening changes files") }
    } catch { Issue.record("\(story): \(error)") }
  }

  /// Everything from a position on was never written.
  @Test func everyCutLeavesTheWholeFramesBeforeIt() throws {
    let log = try SmallLog()
    let whole = try #require(log.disk.contents(of: SmallLog.last))
    var cuts = 0
    for frame in log.newest.dropFirst() {
      for cut in Array(frame.offset...frame.recordsEnd) {
        var bytes = whole
        bytes.zero(from: cut)
        let frames = log.newest.prefix { bytes[$0.offset..<$0.end] == whole[$0.offset..<$0.end] }
        check(log, bytes, frames: frames.count, "zeros from \(cut)")
        cuts += 1
      }
    }
    #expect(cuts > 500)
  }

  /// The file ends at a position: no crash does that to a segment without a seal.
  @Test func everyEndOfTheFileIsRefused() throws {
    let log = try SmallLog()
    let whole = try #require(log.disk.contents(of: SmallLog.last))
    for frame in log.newest.dropFirst() {
      let padding = stride(from: frame.recordsEnd + 1, to: frame.end, by: 501)
      for size in Array(frame.offset...frame.recordsEnd) + Array(padding) + [frame.end - 1] {
        let disk = log.disk.copy()
        disk.replace(SmallLog.last, with: Array(whole.prefix(size)))
        let found = damage(disk)
        if found.map({ path($0.file) }) != SmallLog.last {
          Issue.record("a file that ends at \(size) is not refused")
        }
        if disk.contents(of: SmallLog.last)?.count != size { Issue.record("\(size): changed") }
      }
    }
  }

  /// A write that was torn: garbage from a position on.
  @Test func garbageFromAnyPositionOnLeavesTheWholeFramesBeforeIt() throws {
    let log = try SmallLog()
    let whole = try #require(log.disk.contents(of: SmallLog.last))
    for (index, frame) in log.newest.enumerated().dropFirst() {
      for cut in stride(from: frame.offset, to: frame.recordsEnd, by: 3) {
        var bytes = whole
        bytes.zero(from: cut)
        let garbage = payload(cut, size: min(bytes.count - cut, 4096 - cut % 4096))
        bytes.put(garbage.map { $0 | 1 }, at: cut)
        check(log, bytes, frames: index, "garbage from \(cut)")
      }
    }
  }
}

@Suite struct FlippedBits {
  /// All bits of headers and records, of long records and of padding a part of the bytes with
  /// another bit each. `Zeros` and `SegmentHeaders` try every bit of what is sampled here.
  private func bits(of frames: [Placed], sealAt seal: Int? = nil) -> [Int] {
    var bits = sample(0..<LogFormat.segmentHeaderSize)
    for frame in frames {
      let fully = min(frame.recordsEnd, frame.offset + 160)
      bits += frame.offset * 8..<fully * 8
      bits += sample(fully..<frame.end)
      bits += [frame.recordsEnd * 8, frame.end * 8 - 1].filter { $0 < frame.end * 8 }
    }
    if let seal {
      bits += seal * 8..<(seal + LogFormat.frameHeaderSize + 24) * 8
      bits += sample(seal + LogFormat.frameHeaderSize + 24..<roundUp(seal + 88, to: 4096))
    }
    return bits
  }

  private func sample(_ range: Range<Int>) -> [Int] {
    stride(from: range.lowerBound, to: range.upperBound, by: 37).map { $0 * 8 + $0 % 8 }
  }

  private func checkRefused(_ log: SmallLog, _ file: String, _ bits: [Int]) {
    for bit in bits {
      let disk = log.disk.copy()
      disk.flipBit(bit, in: file)
      if damage(disk).map({ path($0.file) }) != file {
        Issue.record("bit \(bit % 8) of byte \(bit / 8) of \(file) was not refused")
      }
    }
  }

  @Test func ofTheFirstSegmentAreRefused() throws {
    let log = try SmallLog()
    let bits = (4096..<4096 + 88).flatMap { $0 * 8..<$0 * 8 + 8 }
    checkRefused(log, SmallLog.first, bits)
    checkRefused(log, SmallLog.first, sample(0..<4096) + sample(4096 + 88..<8192))
    checkRefused(log, SmallLog.first, Array(8192 * 8..<8280 * 8) + sample(8280..<12_288))
  }

  @Test func ofASealedSegmentAreRefused() throws {
    let log = try SmallLog()
    let end = try #require(log.older.last).end
    checkRefused(log, SmallLog.second, bits(of: log.older, sealAt: end))
  }

  @Test func belowTheDurableMarkAreRefused() throws {
    let log = try SmallLog()
    let below = log.newest.filter { $0.count > 0 && $0.firstLSN <= log.mark }
    #expect(below.count == 3)
    checkRefused(log, SmallLog.last, bits(of: below))
  }

  @Test func ofTheStoreFileAreRefused() throws {
    let log = try SmallLog()
    checkRefused(log, path(StoreFileName.store), Array(0..<StoreFile.size * 8))
  }

  @Test func aboveTheDurableMarkNeverAlterARecord() throws {
    let log = try SmallLog()
    let above = log.newest.filter { $0.firstLSN > log.mark }
    #expect(above.count == 4)
    let end = try #require(above.last).end
    let free = stride(from: end, to: end + LogFormat.sectorSize, by: 99).map { $0 * 8 + $0 % 8 }
    let bits = bits(of: above).filter { $0 >= above[0].offset * 8 } + free
    for bit in bits {
      let disk = log.disk.copy()
      disk.flipBit(bit, in: SmallLog.last)
      do throws(LogError) {
        let found = try open(disk).found
        let kept = log.payloads(through: found.lastLSN)
        if found.payloads != kept || found.lastLSN < log.mark || !found.isAscending {
          Issue.record("bit \(bit) alters what is found")
        }
      } catch {
        guard case .corrupted = error else {
          Issue.record("bit \(bit): \(error)")
          continue
        }
      }
    }
  }
}

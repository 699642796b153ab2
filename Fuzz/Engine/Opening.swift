// SPDX-License-Identifier: Apache-2.0
import FuzzSupport
import PenstockCore
import PenstockLog
import PenstockSystem
import PenstockTesting

/// Opens a log as a store does, with a replay into the state, and checks what any opening owes.
enum Opening {
  static let directory = "/store"
  static let segmentSize = LogFormat.minimumSegmentSize

  static func path(_ name: String) -> String { directory + "/" + name }

  /// What an opening replayed.
  struct Found: Equatable {
    var records: UInt64 = 0
    var lastLSN: UInt64 = 0
    /// CRC-32C of all payloads.
    var digest: UInt32 = 0
    /// Of the last record.
    var position: UInt64 = 0
    var stateHash: UInt64 = 0
  }

  static func open(
    _ disk: SimulatedFileSystem, seed: UInt64
  ) throws(LogError) -> (opened: SegmentedLog.Opened, state: State, found: Found) {
    var options = LogOptions()
    options.segmentSize = segmentSize
    var state = State()
    var found = Found()
    let opened = try SegmentedLog.open(
      directory: directory, options: options, fileSystem: disk, random: StableRandom(seed: seed),
      clock: SimulatedClock()
    ) { (place, payload) throws(LogError) in
      check(place.lsn.value > found.lastLSN, "LSN \(place.lsn) follows \(found.lastLSN)")
      found.lastLSN = place.lsn.value
      found.records += 1
      found.digest = CRC32C.of(payload, seed: found.digest)
      found.position = place.position.packed
      do throws(RecordError) {
        let entry = try Entry(payload)
        _ = try state.apply(
          entry, lsn: place.lsn.value, position: place.position.packed,
          size: LogFormat.recordSize(payload: payload.byteCount))
      } catch {
        throw .corrupted(
          .init(
            file: "segment \(place.position.segment)", offset: UInt64(place.position.offset),
            lsn: place.lsn, reason: error.description))
      }
    }
    found.stateHash = state.stateHash()
    return (opened, state, found)
  }

  /// Every file of the directory with its bytes, but for the lock.
  static func snapshot(_ disk: SimulatedFileSystem) -> [String: [UInt8]] {
    var files: [String: [UInt8]] = [:]
    do {
      for name in try disk.list(directory) where name != StoreFileName.lock {
        files[name] = disk.contents(of: path(name)) ?? []
      }
    } catch {}
    return files
  }

  /// Opens what is on the disk, and checks that
  /// - a refusal leaves `STORE` and the segments as they were;
  /// - a success can be had again, with the same records, and then changes no file;
  /// - the state keeps its invariants, at any time;
  /// - with `goesOn`, records can be appended and are there afterwards.
  static func examine(_ disk: SimulatedFileSystem, goesOn: Bool) {
    let before = snapshot(disk)
    do throws(LogError) {
      let (opened, state, found) = try open(disk, seed: 11)
      check(opened.recovery.records == found.records, "the report counts other records")
      check(opened.recovery.lastLSN.value == found.lastLSN, "the report ends elsewhere")
      opened.log.close()
      examine(state)
      let after = snapshot(disk)
      reopen(disk, found, "again")
      check(snapshot(disk) == after, "a second opening changes files")
      if goesOn { goOn(disk, found) }
    } catch {
      let after = snapshot(disk)
      for (name, bytes) in before
      where StoreFileName.firstLSN(of: name) != nil || name == StoreFileName.store {
        check(after[name] == bytes, "a refused opening changes \(name): \(error)")
      }
    }
  }

  /// Opens after the process died, and expects what was found before.
  private static func reopen(_ disk: SimulatedFileSystem, _ expected: Found, _ when: String) {
    disk.kill()
    do throws(LogError) {
      let (opened, _, found) = try open(disk, seed: 12)
      opened.log.close()
      check(found == expected, "opened \(when), other records are found")
    } catch { check(false, "what was opened is refused when opened \(when): \(error)") }
  }

  private static func examine(_ state: State) {
    var state = state
    func expectWhole(_ when: String) {
      if let text = state.brokenInvariant() { check(false, "\(when): \(text)") }
    }
    expectWhole("after the replay")
    var visible = 0
    for name in state.queueNames(prefix: "", after: nil, limit: .max) {
      let queue = state.queue(named: name).flatMap { state.describe($0) }
      check(queue?.name == name, "a queue is not found by its name")
      visible += queue?.counts.total ?? 0
      if let queue { _ = state.candidates(queue.id, limit: 3) }
    }
    check(visible == state.liveCount, "\(visible) messages in queues, \(state.liveCount) in all")
    for _ in 0..<8 { if state.nextExpired() == nil { break } }
    expectWhole("after a look at what is due")
    state.advance(to: Timestamp(milliseconds: .max))
    expectWhole("at the end of time")
  }

  /// Appends to the recovered log, in a new segment, and closes it cleanly.
  private static func goOn(_ disk: SimulatedFileSystem, _ found: Found) {
    do {
      let seed = found.lastLSN &+ 100
      var (opened, _, _) = try open(disk, seed: seed)
      while opened.tail.needsSegment {
        check(try opened.log.prepareSegment(isCancelled: { false }), "nobody cancelled")
        opened.tail.prepared()
      }
      let entry = Entry(
        queue: QueueID(0), time: Timestamp(milliseconds: 0), record: .logCreated)
      let size = LogFormat.recordSize(payload: entry.payloadSize())
      guard case .ready = opened.tail.makeRoom(size, for: .send) else {
        return check(false, "there is no room in a new segment")
      }
      let place = opened.tail.append(payload: entry.payloadSize(), synced: true) {
        entry.encode(into: $0)
      }
      check(place.lsn.value > found.lastLSN, "an LSN is given out again")
      for batch in opened.tail.takeBatches() {
        try opened.log.write(batch)
        opened.tail.wrote(batch)
      }
      opened.tail.synced(upTo: try opened.log.sync())
      opened.log.close()
      disk.kill()
      let again = try open(disk, seed: 13)
      again.opened.log.close()
      check(again.found.lastLSN == place.lsn.value, "an acknowledged record is not there")
    } catch { check(false, "a recovered log does not go on: \(error)") }
  }
}

// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem
internal import Synchronization

// Compaction: what lives in a mostly dead segment is appended again as ordinary records, then
// nothing lives in it and it is removed. A message is verified before it is copied and keeps its
// identity, its slot and its place in the queue. A crash at any point leaves each message where the
// last durable record says it is; nothing is removed before that is somewhere else.

/// A segment that is being emptied.
struct Compaction: Sendable {
  var segment: UInt32
  /// Slots up to this one were looked at.
  var slots = 0
  /// Messages in memory whose bytes are in the segment.
  var residents: [State.Resident] = []
  /// Waiting messages, by queue; the first LSN goes up.
  var waiting: [State.Draw]?
}

extension Engine {
  /// Slots that are looked at under one lock.
  private static let slotsAtOnce = 8192
  /// Bytes that are moved under one lock.
  private static let bytesAtOnce = 128 << 10

  /// Does one piece of compaction. Nil when there is nothing to compact.
  func compact(_ keeper: inout Keeper) throws(SystemError) -> Rest? {
    // What was purged still counts as living until it is freed, and none of it can be moved.
    if keeper.compaction == nil, clearDying() { return Rest.none }
    if keeper.compaction == nil { keeper.compaction = nextCompaction(keeper.unreadable) }
    guard var compaction = keeper.compaction else { return nil }
    let moved: Int?
    do throws(LogError) { moved = try step(&compaction) } catch {
      keeper.compaction = nil
      keeper.unreadable.insert(compaction.segment)
      options.log?("segment number \(compaction.segment) cannot be compacted: \(error)")
      return Rest.none
    }
    keeper.compaction = compaction
    guard let moved else {
      keeper.compaction = nil
      // What is left was purged meanwhile or waits for room: it must not be tried without end.
      let isEmpty = shared.withLock { $0.state.residents[compaction.segment] == nil }
      return isEmpty || clearDying() ? Rest.none : .atMost(nanoseconds: Self.keeperRetry)
    }
    guard moved >= 0 else {
      let isFull = shared.withLock { $0.tail.isShortOfSpace }
      return .atMost(nanoseconds: isFull ? Self.keeperRetry : Self.roomRetry)
    }
    let rate = max(1, options.compactionBytesPerSecond)
    return excess() > options.segmentSize
      ? Rest.none : .atMost(nanoseconds: UInt64(moved) * 1_000_000_000 / UInt64(rate))
  }

  /// Bytes on disk above what may be: twice what lives, and two segments (`spareSegments`). Two
  /// more are left for the time that checkpoints and compaction take.
  func excess() -> Int {
    // What is kept ready for a full disk beyond them is not the keeper's to lessen.
    let prepared = min(log.preparedCount, 2) * options.segmentSize
    let live = shared.withLock { $0.state.liveBytes }
    let spare = options.spareSegments * options.segmentSize
    return Int(clamping: log.bytes) + prepared - 2 * live - spare
  }

  /// The segment to empty next: the one with the least that lives, when too much disk is used.
  private func nextCompaction(_ unreadable: Set<UInt32>) -> Compaction? {
    let excess = excess()
    let horizon = horizon
    guard excess > 0 else {
      // Less may live soon, without a record that ends a segment: a purge, say.
      shared.withLock { $0.keeperFloor = max(0, $0.state.liveBytes + excess / 2) }
      return nil
    }
    let residents = shared.withLock { $0.state.residents }
    var best: (segment: UInt32, share: Double)?
    var dead = 0
    for (segment, info) in log.segments where segment < horizon && !unreadable.contains(segment) {
      let share = Double(residents[segment]?.bytes ?? 0) / Double(max(info.bytes, 1))
      if share < 0.75 { dead += Int(Double(info.bytes) * (1 - share)) }
      // Ties by number, so that a run repeats.
      if share < best?.share ?? 0.75 || share == best?.share && segment < best?.segment ?? 0 {
        best = (segment, share)
      }
    }
    // Less would be moved around without end and give nothing back.
    guard let best, residents[best.segment] != nil, dead >= options.segmentSize / 2 else {
      return nil
    }
    return Compaction(segment: best.segment)
  }

  /// Moves some messages. Answers how many bytes, -1 when there is no room yet, or nil at the end.
  private func step(_ compaction: inout Compaction) throws(LogError) -> Int? {
    let segment = compaction.segment
    if !compaction.residents.isEmpty { return try moveResidents(&compaction) }
    let end = shared.withLock { $0.state.slotCount }
    if compaction.slots < end {
      let slots = compaction.slots..<min(end, compaction.slots + Self.slotsAtOnce)
      compaction.slots = slots.upperBound
      compaction.residents = shared.withLock { $0.state.residents(of: segment, slots: slots) }
      return 0
    }
    if compaction.waiting == nil {
      compaction.waiting = shared.withLock { $0.state.parked(in: segment) }.reversed()
    }
    return compaction.waiting?.isEmpty == false ? try moveWaiting(&compaction) : nil
  }

  private struct Copy {
    var resident: State.Resident
    var entry: Entry
    var payload: [UInt8]
    var content: Int
    var size: Int { entry.payloadSize() + payload.count - content }
    /// Bytes of the record that is copied.
    var original: Int { LogFormat.recordSize(payload: payload.count) }
  }

  /// Reads a message and makes the record that moves it; nil when its bytes are damaged.
  private func copy(_ resident: State.Resident, isParked: Bool) throws(LogError) -> Copy? {
    do throws(LogError) {
      return try keeperWindow.withLock { (window) throws(LogError) in
        try log.read(LogPosition(packed: resident.position), &window) { payload in
          do throws(RecordError) {
            let (entry, content) = try Entry.copy(
              of: payload, message: resident.message, slot: isParked ? nil : resident.slot)
            return Copy(resident: resident, entry: entry, payload: payload.array, content: content)
          } catch { return nil }
        }
      }
    } catch {
      guard case .corrupted = error else { throw error }
      return nil
    }
  }

  /// Whether there is room for a record that keeps the log small.
  ///
  /// - Parameter isCopy: it may not take what receives and deletes will need.
  private func hasRoom(_ payload: Int, isCopy: Bool, _ shared: inout Shared) -> Bool {
    let size = LogFormat.recordSize(payload: payload)
    if isCopy, !shared.tail.canSpare(size) { return false }
    if case .ready = shared.tail.makeRoom(size, for: .lease) { return true }
    return false
  }

  private func append(_ copy: Copy, _ shared: inout Shared) {
    shared.metrics.copiedBytes += UInt64(copy.size)
    _ = append(copy.entry, payload: copy.size, synced: false, &shared) { buffer in
      copy.entry.encode(into: buffer)
      copy.payload.withRaw { buffer.put($0.extracting(copy.content..<$0.byteCount)) }
    }
  }

  private func moveResidents(_ compaction: inout Compaction) throws(LogError) -> Int {
    var copies: [Copy] = []
    var bytes = 0
    var taken = 0
    for resident in compaction.residents.reversed() where bytes < Self.bytesAtOnce {
      taken += 1
      // What is gone by now need not be readable.
      guard shared.withLock({ $0.state.owner(of: resident) != nil }) else { continue }
      if let copy = try copy(resident, isParked: false) {
        copies.append(copy)
        bytes += copy.size
      } else {
        setAside(resident)
      }
    }
    var done = true
    critical { shared, _ in
      for var copy in copies where shared.refusal == nil {
        // It may have been moved to another queue, where its bytes will name that one.
        guard let owner = shared.state.owner(of: copy.resident),
          copy.entry.queue == copy.resident.bytesQueue
        else { continue }
        copy.entry.queue = owner
        guard hasRoom(copy.size, isCopy: true, &shared) else {
          done = false
          break
        }
        append(copy, &shared)
      }
    }
    // Those that were moved are somewhere else when they are looked at again.
    guard done else { return -1 }
    compaction.residents.removeLast(taken)
    return bytes
  }

  private func moveWaiting(_ compaction: inout Compaction) throws(LogError) -> Int {
    guard var draw = compaction.waiting?.popLast() else { return 0 }
    draw.limit = 256
    // Those before the first of the run were drawn or moved.
    let messages = try waiting(draw)
    var bytes = 0
    for message in messages {
      let resident = State.Resident(
        slot: 0, message: message.message,
        position: LogPosition(segment: compaction.segment, offset: message.offset).packed,
        size: Int(message.size), bytesQueue: draw.queue)
      let (queue, segment) = (draw.queue, compaction.segment)
      func isThere(_ state: State) -> Bool {
        state.isFirstParked(message.message, queue, in: segment, size: Int(message.size))
      }
      guard shared.withLock({ isThere($0.state) }) else {
        // It was drawn meanwhile.
        draw.first = message.message + 1
        continue
      }
      let copy = try copy(resident, isParked: true)
      guard copy == nil || copy?.original == Int(message.size) && copy?.entry.queue == queue else {
        throw .damaged(
          "index of segment \(segment)", at: UInt64(message.offset), lsn: LSN(message.message),
          "another record stands in the message's place")
      }
      if copy == nil { keepEvidence(resident) }
      var done = true
      critical { shared, _ in
        guard shared.refusal == nil, isThere(shared.state) else { return }
        let entry = Entry(
          queue: draw.queue, time: shared.state.time,
          record: .setAside(message: message.message, slot: nil, size: message.size))
        done = hasRoom(copy?.size ?? entry.payloadSize(), isCopy: copy != nil, &shared)
        guard done else { return }
        if let copy { append(copy, &shared) } else { _ = append(entry, synced: true, &shared) }
      }
      guard done else {
        compaction.waiting?.append(draw)
        return -1
      }
      bytes += Int(message.size)
      draw.first = message.message + 1
      if bytes >= Self.bytesAtOnce { break }
    }
    if !messages.isEmpty { compaction.waiting?.append(draw) }
    return bytes
  }

  // MARK: Damaged messages

  /// Takes a message in memory out of its queue whose bytes are damaged.
  func setAside(_ resident: State.Resident) {
    if plantedBug == .losesDamaged { return }
    keepEvidence(resident)
    let attempt: Attempt = { engine, shared, actions in
      guard shared.refusal == nil, let entry = shared.state.decideSetAside(resident) else {
        return true
      }
      let size = LogFormat.recordSize(payload: entry.payloadSize())
      switch shared.tail.makeRoom(size, for: .lease) {
      case .ready:
        _ = engine.append(entry, synced: true, &shared)
        // What stood behind it in its group can be received.
        engine.serveWaiters(on: entry.queue, &shared, &actions)
      case .wait: return false
      // It is found again when it is received again.
      case .full: break
      }
      return true
    }
    critical { shared, actions in
      if !attempt(self, &shared, &actions) { shared.drainsWaitingForRoom.append(attempt) }
    }
  }

  /// Copies the bytes of a damaged message to a file of its own, and says so.
  private func keepEvidence(_ resident: State.Resident) {
    let position = LogPosition(packed: resident.position)
    options.onEvent?(.setAside(message: resident.message, queue: resident.bytesQueue))
    do throws(LogError) {
      let name = try log.keepDamaged(position, size: resident.size)
      options.log?(
        "message with LSN \(resident.message) is damaged and was set aside; "
          + "its bytes are kept in \(name)")
    } catch {
      options.log?(
        "message with LSN \(resident.message) is damaged and was set aside; "
          + "its bytes could not be kept: \(error)")
    }
  }
}

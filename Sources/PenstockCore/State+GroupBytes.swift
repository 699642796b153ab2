// SPDX-License-Identifier: Apache-2.0
internal import PenstockSystem

// Groups and tenants as bytes, in a checkpoint.

extension State {
  /// The heads of groups that wait to be freed, in the order of that.
  func dyingGroupHeads() -> [UInt32] {
    dyingGroups.flatMap { all(from: $0) }.map { groups[Int($0)].messages.head }
  }

  /// What a queue with groups has beside what every queue has: them, the row of those that can
  /// deliver, and the sends that are remembered.
  func encodeGroups<Failure: Error>(
    _ q: Int, _ buffer: CommitBuffer, _ flush: (CommitBuffer) throws(Failure) -> Void
  ) throws(Failure) {
    let queue = table[q]
    buffer.put(UInt32(queue.groups.count))
    func encodeGroup(_ group: UInt32) throws(Failure) {
      buffer.put(groups[Int(group)].hash)
      try encode(groups[Int(group)].messages, buffer, flush)
    }
    // In the order in which they came to be: so they will be freed in the same order.
    let row = row(of: queue)
    let inRow = Set(row)
    var numbers: [UInt32: UInt32] = [:]
    for (number, group) in all(of: queue).reversed().enumerated() {
      if inRow.contains(group) { numbers[group] = UInt32(number) }
      try encodeGroup(group)
    }
    buffer.put(UInt32(row.count))
    for group in row { buffer.put(numbers[group] ?? 0) }
    var send = queue.groups.firstSend
    while send != Slab.none {
      let entry = sends[Int(send)]
      buffer.put(entry.hash)
      buffer.put(entry.id)
      buffer.put(entry.message)
      buffer.put(entry.expiresAt)
      if buffer.count > 1 << 20 { try flush(buffer) }
      send = entry.next
    }
    // No send has a hash and an LSN of zero.
    for _ in 0..<6 { buffer.put(UInt64(0)) }
  }

  mutating func decodeGroups(
    _ number: UInt32, _ cursor: inout ByteCursor, _ span: borrowing RawSpan,
    _ take: (UInt32) throws(RecordError) -> Void
  ) throws {
    guard let q = places[number], table[q].groups.count == 0,
      !table[q].settings.isFIFO || table[q].runs.isEmpty && table[q].counts == QueueCounts()
    else { throw RecordError(description: "a checkpoint has groups of a queue that has none") }
    var made: [UInt32] = []
    for _ in 0..<Int(try cursor.u32(span)) {
      let hash = TextHash(high: try cursor.u64(span), low: try cursor.u64(span))
      let group = makeGroup(q, hash)
      var last = table[q].purgedBefore
      while let index = try decodeSlot(&cursor, span, take) {
        // Of a tenant those that have an activity come first, in no order.
        let isActive = !table[q].settings.isFIFO && slab[index].state.hasActivity
        guard slab[index].message >= (isActive ? table[q].purgedBefore : last),
          !isActive || tenant(group).map({ tenants[$0].waiting }) == Slab.none
        else { throw RecordError(description: "a checkpoint's group is out of order") }
        if !isActive { last = slab[index].message + 1 }
        switch slab[index].state {
        case .grouped:
          slab[index].link = group
          table[q].counts.visible += 1
          table[q].bytes += slab[index].size
          if let tenant = tenant(group), tenants[tenant].waiting == Slab.none {
            tenants[tenant].waiting = index
          }
        case .delayed, .leased, .returned:
          try decodeActive(index, q, group: group, &cursor, span)
        default:
          throw RecordError(description: "a checkpoint has slot \(index) in a wrong list")
        }
        groups[Int(group)].messages.append(index, &slab)
      }
      guard !groups[Int(group)].messages.isEmpty else {
        throw RecordError(description: "a checkpoint has a group without messages")
      }
      groupChanged(q, group)
      made.append(group)
    }
    var row: [UInt32] = []
    for _ in 0..<Int(try cursor.u32(span)) {
      let number = Int(try cursor.u32(span))
      guard number < made.count else { throw BytesTooShort() }
      row.append(made[number])
    }
    guard Set(row) == Set(self.row(of: table[q])), row.count == Set(row).count else {
      throw RecordError(description: "a checkpoint's row of groups is another's")
    }
    lineUp(q, row)
    var last: UInt64 = 0
    while true {
      let entry = Deduplication(
        hash: TextHash(high: try cursor.u64(span), low: try cursor.u64(span)),
        id: MessageID(high: try cursor.u64(span), low: try cursor.u64(span)),
        message: try cursor.u64(span), expiresAt: try cursor.i64(span), queue: table[q].id.value)
      if entry.message == 0 { break }
      guard table[q].settings.isFIFO, entry.message > last, Self.messages.contains(entry.message)
      else { throw RecordError(description: "a checkpoint's remembered sends are out of order") }
      last = entry.message
      insert(q, entry)
    }
    awaitExpiry(q)
  }

  mutating func decodeLoads(
    _ number: UInt32, _ cursor: inout ByteCursor, _ span: borrowing RawSpan
  ) throws {
    guard let q = places[number], !table[q].settings.isFIFO, table[q].groups.count > 0 else {
      throw RecordError(description: "a checkpoint has loads of a queue that has none")
    }
    func load() throws -> Load {
      let load = Load(amount: try cursor.u64(span), minute: try cursor.i64(span))
      guard load.amount <= Load.limit, load.minute >= 0 else { throw BytesTooShort() }
      return load
    }
    table[q].groups.load = try load()
    for group in all(of: table[q]).reversed() {
      if let tenant = tenant(group) { tenants[tenant].load = try load() }
    }
  }
}

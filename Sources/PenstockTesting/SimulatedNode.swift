// SPDX-License-Identifier: Apache-2.0

/// The bytes of a file: what reads see, what is durable, and how one became the other.
///
/// Invariants
/// - I1: a sector in `current` that differs from `durable` has versions, or its pages were dropped
///   by a failed sync.
/// - I2: versions and sizes are in the order of the calls that made them.
///
/// A crash picks one pending size, or the durable one, and for each sector below it one version of
/// that sector, or the durable one: the sectors of one write and of several reach the disk in any
/// order, with any of them missing. A cut frees blocks, so it is ordered against the sectors it
/// touches: with the size of a time before the cut no later version of such a sector is seen, and
/// with the size of a time after the cut no earlier one.
struct SimulatedNode {
  private struct Version {
    var sequence: Int
    var isCut: Bool
    /// The sector, without what lies behind the end of the file.
    var bytes: [UInt8]
  }

  private(set) var current: [UInt8] = []
  private var durable: [UInt8] = []
  private var sectors: [Int: [Version]] = [:]
  private var sizes: [(sequence: Int, size: Int)] = []
  /// Grows with every change.
  private var sequence = 0
  /// Ranges, in bytes, whose reads fail.
  var unreadable: [Range<UInt64>] = []

  mutating func write(_ bytes: [UInt8], at offset: Int, sectorSize: Int) {
    if bytes.isEmpty { return }
    sequence += 1
    let end = offset + bytes.count
    if end > current.count {
      current.resize(to: end)
      sizes.append((sequence, end))
    }
    current.replaceSubrange(offset..<end, with: bytes)
    record(sectors: offset / sectorSize..<sectorCount(end, sectorSize), sectorSize, isCut: false)
  }

  mutating func resize(to size: Int, sectorSize: Int) {
    if size == current.count { return }
    sequence += 1
    sizes.append((sequence, size))
    let end = sectorCount(max(current.count, durable.count), sectorSize)
    let isCut = size < current.count
    current.resize(to: size)
    if isCut { record(sectors: size / sectorSize..<end, sectorSize, isCut: true) }
  }

  /// Makes every pending change durable.
  mutating func sync(sectorSize: Int) {
    if sectors.isEmpty && sizes.isEmpty { return }
    durable.resize(to: current.count)
    for sector in sectors.keys {  // Their order does not matter: they do not overlap.
      let range = current.sector(sector, sectorSize)
      durable.replaceSubrange(range, with: current[range])
    }
    dropPending()
  }

  /// Marks everything clean without making it durable.
  mutating func dropPending() {
    sectors = [:]
    sizes = []
  }

  /// Puts `bytes` there, durably.
  mutating func replace(_ bytes: [UInt8]) {
    current = bytes
    durable = bytes
    dropPending()
  }

  /// Flips a bit in what reads see and in what is durable.
  mutating func flip(bit: Int) {
    let mask: UInt8 = 1 << (bit % 8)
    if bit / 8 < current.count { current[bit / 8] ^= mask }
    if bit / 8 < durable.count { durable[bit / 8] ^= mask }
  }

  /// Loses power. With `garbage`, a generator for this file, a pending sector may also become
  /// garbage.
  mutating func crash(
    choosing chooser: inout some Chooser, sectorSize: Int, garbage: StableRandom?
  ) {
    let kept = sizes.isEmpty ? 0 : chooser.choose(sizes.count + 1)
    let time = kept == 0 ? 0 : sizes[kept - 1].sequence
    var image = durable
    image.resize(to: kept == 0 ? durable.count : sizes[kept - 1].size)
    for (sector, versions) in sectors.sorted(by: { $0.key < $1.key }) {
      let range = image.sector(sector, sectorSize)
      if range.isEmpty { continue }
      let first = versions.lastIndex { $0.isCut && $0.sequence <= time }
      let end = versions.firstIndex { $0.isCut && $0.sequence > time } ?? versions.count
      var outcomes = first == nil ? [Array(image[range])] : []
      let seen = versions[(first ?? 0)..<end]
      for version in seen {
        var bytes = version.bytes
        bytes.resize(to: range.count)
        if outcomes.last != bytes { outcomes.append(bytes) }
      }
      if let garbage, seen.contains(where: { !$0.isCut }) {
        outcomes.insert(range.map { _ in UInt8(truncatingIfNeeded: garbage.next()) }, at: 1)
      }
      let chosen = outcomes.count == 1 ? 0 : chooser.choose(outcomes.count)
      image.replaceSubrange(range, with: outcomes[chosen])
    }
    replace(image)
  }

  private mutating func record(sectors range: Range<Int>, _ sectorSize: Int, isCut: Bool) {
    for sector in range {
      let bytes = Array(current[current.sector(sector, sectorSize)])
      sectors[sector, default: []].append(
        Version(sequence: sequence, isCut: isCut, bytes: bytes))
    }
  }

  private func sectorCount(_ size: Int, _ sectorSize: Int) -> Int {
    (size + sectorSize - 1) / sectorSize
  }
}

/// The names in a directory: what `list` shows, what is durable, and the changes between.
///
/// A crash keeps or drops each change on its own, so changes of different names happen in any
/// order. A change of a name waits for the earlier ones of that name: otherwise a file that was
/// renamed away could lose both names to a new file of its old name. A rename is one change of two
/// names.
struct SimulatedDirectory {
  private struct Change {
    var removed: String?
    var added: String?
    var node: Int
  }

  private(set) var entries: [String: Int] = [:]
  private var durable: [String: Int] = [:]
  private var pending: [Change] = []

  mutating func change(removing removed: String?, adding added: String?, node: Int) {
    let change = Change(removed: removed, added: added, node: node)
    Self.apply(change, to: &entries)
    pending.append(change)
  }

  mutating func sync() {
    if !pending.isEmpty { durable = entries }
    pending = []
  }

  /// Marks every change clean without making it durable.
  mutating func dropPending() { pending = [] }

  /// Makes the directory durable, and in it adds a name or, with nil, removes it.
  mutating func set(_ name: String, to node: Int?) {
    sync()
    entries[name] = node
    durable[name] = node
  }

  mutating func crash(choosing chooser: inout some Chooser) {
    var blocked: Set<String> = []
    for change in pending {
      let names = [change.removed, change.added].compactMap { $0 }
      if blocked.isDisjoint(with: names) && chooser.choose(2) == 1 {
        Self.apply(change, to: &durable)
      } else {
        blocked.formUnion(names)
      }
    }
    entries = durable
    pending = []
  }

  private static func apply(_ change: Change, to entries: inout [String: Int]) {
    if let name = change.removed { entries[name] = nil }
    if let name = change.added { entries[name] = change.node }
  }
}

extension [UInt8] {
  /// Cuts, or extends with zeros.
  fileprivate mutating func resize(to size: Int) {
    if size < count {
      removeLast(count - size)
    } else {
      append(contentsOf: [UInt8](repeating: 0, count: size - count))
    }
  }

  /// The part of these bytes that a sector holds.
  fileprivate func sector(_ sector: Int, _ size: Int) -> Range<Int> {
    Swift.min(sector * size, count)..<Swift.min((sector + 1) * size, count)
  }
}

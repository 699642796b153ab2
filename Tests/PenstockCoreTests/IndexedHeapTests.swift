// SPDX-License-Identifier: Apache-2.0
import PenstockCore
import PenstockTesting
import Testing

@Suite struct IndexedHeaps {
  /// Random insertions, moves and removals beside a sorted array of the same items.
  @Test(arguments: 0..<20) func agreeWithASortedArray(seed: Int) {
    let random = StableRandom(seed: UInt64(seed))
    let items = 1 + random.below(60)
    var heap = IndexedHeap()
    var places = absentPlaces(items)
    var keys: [UInt32: UInt64] = [:]
    for _ in 0..<600 {
      let item = UInt32(random.below(items))
      // Few keys, so that many are equal.
      let key = random.chance(1, of: 20) ? UInt64.max : UInt64(random.below(12))
      switch random.below(3) {
      case 0 where keys[item] == nil:
        heap.insert(item, key: key, &places)
        keys[item] = key
      case 1:
        heap.move(item, key: key, &places)
        keys[item] = key
      default:
        heap.remove(item, &places)
        keys[item] = nil
      }
      let least = keys.min { ($0.value, $0.key) < ($1.value, $1.key) }
      #expect(heap.first?.item == least?.key)
      #expect(heap.first?.key == least?.value)
      #expect(heap.count == keys.count)
      for item in 0..<places.count {
        let place = places[item]
        if keys[UInt32(item)] == nil {
          #expect(place == IndexedHeap.absent)
        } else {
          #expect(heap.nodes[Int(place)].item == UInt32(item))
        }
      }
    }
    var drained: [UInt32] = []
    while let first = heap.first {
      drained.append(first.item)
      heap.remove(first.item, &places)
    }
    let sorted = keys.sorted { ($0.value, $0.key) < ($1.value, $1.key) }
    #expect(drained == sorted.map(\.key))
  }

  @Test func removingWhatIsNotThereChangesNothing() {
    var heap = IndexedHeap()
    var places = absentPlaces(2)
    heap.remove(0, &places)
    heap.insert(1, key: 5, &places)
    heap.remove(0, &places)
    #expect(heap.count == 1)
    #expect(heap.first?.item == 1)
  }
}

private func absentPlaces(_ count: Int) -> Blocks<UInt32> {
  var places = Blocks<UInt32>()
  for _ in 0..<count { places.append(IndexedHeap.absent) }
  return places
}

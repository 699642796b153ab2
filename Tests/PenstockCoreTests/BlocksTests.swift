// SPDX-License-Identifier: Apache-2.0
import PenstockCore
import PenstockTesting
import Testing

@Suite struct BlocksOfElements {
  private func array(_ blocks: Blocks<Int>) -> [Int] { (0..<blocks.count).map { blocks[$0] } }

  /// Random changes beside an array, around the ends of blocks. Copies stay what they were.
  @Test(arguments: 0..<10) func agreeWithAnArray(seed: Int) {
    let random = StableRandom(seed: UInt64(seed))
    var blocks = Blocks<Int>()
    var model: [Int] = []
    var copies: [(blocks: Blocks<Int>, model: [Int])] = []
    func grow(_ count: Int) {
      for _ in 0..<count {
        let value = random.below(1000)
        blocks.append(value)
        model.append(value)
      }
    }
    grow([0, 1, 1022, 1024, 1025, 2040, 3000][seed % 7])
    for round in 0..<300 {
      switch random.below(4) {
      case 0: grow(1 + random.below(4))
      case 1:
        for _ in 0..<min(model.count, random.below(4)) {
          #expect(blocks.removeLast() == model.removeLast())
        }
      case 2:
        guard !model.isEmpty else { continue }
        let index = random.below(model.count)
        blocks[index] += round
        model[index] += round
      default: if copies.count < 6 { copies.append((blocks, model)) }
      }
      #expect(blocks.count == model.count)
      #expect(blocks.first == model.first)
    }
    #expect(array(blocks) == model)
    for copy in copies { #expect(array(copy.blocks) == copy.model) }
    while !model.isEmpty { #expect(blocks.removeLast() == model.removeLast()) }
    #expect(blocks.count == 0 && blocks.first == nil)
    grow(2)
    #expect(array(blocks) == model)
  }
}

import Diffusion
import Kernels

/// Where the patches of several images lie in the vision tower: cut into windows, and window by window.
struct VisionLayout {
  /// Merged tokens in the tower's order, by their numbers in the order of ``PatchedImage/patches`` of all images.
  let order: [Int]
  /// The rows of patches of each window, in the tower's order; windows at the right and lower edges may be smaller.
  let windows: [Range<Int>]
  /// The rows of patches of each image.
  let images: [Range<Int>]
  /// Rotary tables by row and column, in the tower's order.
  let rotary: RotaryTable

  init(_ grids: [TokenGrid], _ configuration: VisionConfiguration) {
    let merge = configuration.mergeSize, side = configuration.windowTokens, patches = configuration.mergedPatches
    var order: [Int] = [], windows: [Range<Int>] = [], images: [Range<Int>] = [], places: [(row: Int, column: Int)] = []
    for grid in grids {
      let height = grid.height / merge, width = grid.width / merge, first = order.count
      for top in stride(from: 0, to: height, by: side) {
        for left in stride(from: 0, to: width, by: side) {
          let begin = order.count
          for row in top..<min(top + side, height) {
            for column in left..<min(left + side, width) {
              order.append(first + row * width + column)
              for part in 0..<patches {
                places.append((row * merge + part / merge, column * merge + part % merge))
              }
            }
          }
          windows.append(patches * begin..<patches * order.count)
        }
      }
      images.append(patches * first..<patches * order.count)
    }
    (self.order, self.windows, self.images) = (order, windows, images)
    rotary = RotaryTable(
      places: places, headDim: configuration.headDim, theta: VisionConfiguration.ropeTheta)
  }
}
